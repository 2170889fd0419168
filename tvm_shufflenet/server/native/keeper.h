// A session's keeper: a process beside it that runs nothing of its client's.
//
// The session may open files only to read them, so its keeper writes them, in its folder and nowhere else, and knows
// exactly how much they take. It also decides on the session's threads where the kernel asks it to (seccomp.h), passes
// on what the session prints, and removes the folder when the session has ended, however that was.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

// The session's end of the connection to its keeper. Every function throws a tvm::ffi::Error with what went wrong.
class Keeper {
 public:
  // -1: there is none, the session writes its files itself.
  explicit Keeper(int fd = -1) : fd_(fd) {}

  bool there() const { return fd_ >= 0; }
  int fd() const { return fd_; }

  void Write(const std::string& name, const std::string& data) const;
  void Copy(const std::string& name, const std::string& to) const;
  void Remove(const std::string& name) const;
  // Hands over the descriptor on which the kernel asks about threads.
  void Supervise(int listener) const;

 private:
  void Ask(char verb, const std::string& names, uint64_t bytes) const;
  void AwaitAnswer() const;

  int fd_;
};

// Forks the keeper of the calling process, whose folder is `folder`; `limit_bytes` is for all its files, 0 for none.
// What the process prints from now on goes to its keeper. Without a keeper when the fork fails.
Keeper StartKeeper(int folder, const std::string& path, int64_t limit_bytes);

#include "keeper.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <tvm/ffi/error.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "folders.h"
#include "sandbox.h"

#ifndef SECCOMP_USER_NOTIF_FLAG_CONTINUE
#define SECCOMP_USER_NOTIF_FLAG_CONTINUE 1u
#endif

namespace {

constexpr char kWriteFile = 'w', kCopyFile = 'c', kRemoveFile = 'r', kSupervise = 's';
constexpr size_t kMostNameBytes = 255, kPiece = 1 << 16;
constexpr int kMostFiles = 256;  // they are looked through for each that comes
constexpr int64_t kBlock = 4096;
constexpr size_t kMostOutput = 1 << 18;
// Calls of several threads at once may all pass before the first new thread is there to be counted.
constexpr long kMostThreads = 256;

struct Request {
  char verb;
  uint8_t name_bytes, to_bytes;
  uint64_t bytes;
};

// A message of one byte, with room for a file descriptor that goes with it.
struct DescriptorMessage {
  DescriptorMessage() {
    header.msg_iov = &data_;
    header.msg_iovlen = 1;
    header.msg_control = control_;
    header.msg_controllen = sizeof(control_);
  }
  DescriptorMessage(const DescriptorMessage&) = delete;

  msghdr header{};

 private:
  char byte_ = 0;
  alignas(cmsghdr) char control_[CMSG_SPACE(sizeof(int))] = {};
  iovec data_{&byte_, 1};
};

bool ReadAll(int fd, void* to, size_t count) {
  for (size_t done = 0; done < count;) {
    ssize_t now = recv(fd, static_cast<char*>(to) + done, count - done, 0);
    if (now == 0 || (now < 0 && errno != EINTR)) return false;
    done += now > 0 ? now : 0;
  }
  return true;
}

bool WriteAll(int fd, const void* from, size_t count) {
  for (size_t done = 0; done < count;) {
    ssize_t now = write(fd, static_cast<const char*>(from) + done, count - done);
    if (now < 0 && errno != EINTR) return false;
    done += now > 0 ? now : 0;
  }
  return true;
}

bool IsPlainName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

class KeeperProcess {
 public:
  KeeperProcess(pid_t session, int requests, int output, int log, int folder, int64_t limit_bytes)
      : session_(session), requests_(requests), output_(output), log_(log), folder_(folder), limit_(limit_bytes) {}

  // Until the session has ended.
  void Run() {
    while (true) {
      pollfd fds[] = {{requests_, POLLIN, 0}, {output_, POLLIN, 0}, {listener_, POLLIN, 0}};
      if (poll(fds, 3, -1) < 0) continue;
      if (fds[1].revents & POLLIN) PassOn();
      if (fds[2].revents & POLLIN) Decide();
      if (fds[2].revents & (POLLHUP | POLLERR)) listener_ = -1;
      if (fds[1].revents == POLLHUP) output_ = -1;
      if ((fds[0].revents & POLLIN) && !Serve()) break;
      if (fds[0].revents == POLLHUP) break;
    }
    while (output_ >= 0 && PassOn()) continue;
  }

 private:
  bool Serve();
  std::string WriteFile(const std::string& name, uint64_t bytes);
  std::string CopyFile(const std::string& name, const std::string& to);
  std::string RemoveFile(const std::string& name);
  std::string Room(const std::string& name, uint64_t bytes);
  int Create(const std::string& name);
  bool ReceiveListener();
  void Decide();
  bool MayStartThread();
  bool PassOn();

  bool Answer(const std::string& error) {
    auto length = static_cast<uint32_t>(error.size());
    return WriteAll(requests_, &length, sizeof(length)) && WriteAll(requests_, error.data(), length);
  }

  const pid_t session_;
  int requests_, output_, log_, folder_, listener_ = -1;
  const int64_t limit_;
  long threads_granted_ = 0;
  size_t printed_ = 0;
};

bool KeeperProcess::Serve() {
  Request request;
  if (!ReadAll(requests_, &request, sizeof(request))) return false;
  std::string name(request.name_bytes, '\0'), to(request.to_bytes, '\0');
  if (!ReadAll(requests_, name.data(), name.size()) || !ReadAll(requests_, to.data(), to.size())) return false;
  if (request.verb == kSupervise) return ReceiveListener();
  if (!IsPlainName(name) || (request.verb == kCopyFile && !IsPlainName(to))) return Answer("not a file's name");
  switch (request.verb) {
    case kWriteFile: {  // the session sends the bytes once it is told that there is room
      std::string error = Room(name, request.bytes);
      return Answer(error) && (!error.empty() || Answer(WriteFile(name, request.bytes)));
    }
    case kCopyFile: return Answer(CopyFile(name, to));
    case kRemoveFile: return Answer(RemoveFile(name));
    default: return false;
  }
}

// What the file `name` of `bytes` would leave no room for, or nothing. It is counted from the folder each time: that is
// exact, since nobody else writes there, and what is replaced or removed is emptied first.
std::string KeeperProcess::Room(const std::string& name, uint64_t bytes) {
  if (limit_ > 0 && bytes > static_cast<uint64_t>(limit_)) {
    return "'" + name + "' has " + std::to_string(bytes) + " bytes, --session-disk allows " + std::to_string(limit_);
  }
  int64_t taken = static_cast<int64_t>(bytes);
  int files = 0;
  int again = openat(folder_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* listing = again < 0 ? nullptr : fdopendir(again);
  if (!listing) return std::string("cannot read the session's folder: ") + strerror(errno);
  while (dirent* entry = readdir(listing)) {
    struct stat status {};
    if (entry->d_name[0] == '.' && (!entry->d_name[1] || (entry->d_name[1] == '.' && !entry->d_name[2]))) continue;
    ++files;
    if (name == entry->d_name || fstatat(folder_, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
    taken += std::max<int64_t>(status.st_size, kBlock);
  }
  closedir(listing);
  if (limit_ > 0 && taken > limit_) {
    return "this session's files would take " + std::to_string(taken) + " bytes, --session-disk allows " +
           std::to_string(limit_);
  }
  return files < kMostFiles ? "" : "this session has " + std::to_string(files) + " files, and may have no more";
}

int KeeperProcess::Create(const std::string& name) {
  return openat(folder_, name.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
}

// What is on its way is read to its end even if it cannot be kept: the session has one connection for everything.
std::string KeeperProcess::WriteFile(const std::string& name, uint64_t bytes) {
  std::string error;
  int fd = Create(name);
  if (fd < 0) error = "cannot write '" + name + "': " + strerror(errno);
  std::vector<char> piece(kPiece);
  for (uint64_t left = bytes; left > 0;) {
    size_t now = std::min<uint64_t>(left, piece.size());
    if (!ReadAll(requests_, piece.data(), now)) break;
    if (error.empty() && !WriteAll(fd, piece.data(), now)) error = "cannot write '" + name + "': " + strerror(errno);
    left -= now;
  }
  if (fd >= 0) close(fd);
  if (!error.empty()) RemoveFile(name);
  return error;
}

std::string KeeperProcess::CopyFile(const std::string& name, const std::string& to) {
  struct stat status {};
  int from = openat(folder_, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  std::string error;
  if (from < 0 || fstat(from, &status) != 0) error = "cannot read '" + name + "': " + strerror(errno);
  if (error.empty()) error = Room(to, static_cast<uint64_t>(status.st_size));
  int fd = error.empty() ? Create(to) : -1;
  if (error.empty() && fd < 0) error = "cannot write '" + to + "': " + strerror(errno);
  std::vector<char> piece(kPiece);
  while (error.empty()) {
    ssize_t now = read(from, piece.data(), piece.size());
    if (now == 0) break;
    if (now < 0 || !WriteAll(fd, piece.data(), now)) error = "cannot copy '" + name + "': " + strerror(errno);
  }
  if (from >= 0) close(from);
  if (fd >= 0) close(fd);
  if (fd >= 0 && !error.empty()) RemoveFile(to);
  return error;
}

// Emptied first: who has the file open or mapped would otherwise keep what no limit counts any more.
std::string KeeperProcess::RemoveFile(const std::string& name) {
  int fd = openat(folder_, name.c_str(), O_WRONLY | O_TRUNC | O_NOFOLLOW | O_CLOEXEC);
  if (fd >= 0) close(fd);
  if (unlinkat(folder_, name.c_str(), 0) == 0) return "";
  return "cannot remove '" + name + "': " + strerror(errno);
}

bool KeeperProcess::ReceiveListener() {
  DescriptorMessage message;
  if (recvmsg(requests_, &message.header, MSG_CMSG_CLOEXEC) != 1) return false;
  cmsghdr* header = CMSG_FIRSTHDR(&message.header);
  if (!header || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int))) return false;
  int received;
  memcpy(&received, CMSG_DATA(header), sizeof(int));
  if (listener_ >= 0) close(received);
  else listener_ = received;
  return true;
}

// A new thread, or a thread's cores. The kernel has stopped the thread that asks, and its arguments are in registers.
void KeeperProcess::Decide() {
  union {
    seccomp_notif of;
    char room[512];  // the kernel's may be longer than this header's
  } question;
  union {
    seccomp_notif_resp of;
    char room[512];
  } answer;
  memset(&question, 0, sizeof(question));
  memset(&answer, 0, sizeof(answer));
  if (ioctl(listener_, SECCOMP_IOCTL_NOTIF_RECV, &question) != 0) return;
  answer.of.id = question.of.id;
  if (question.of.data.nr == SYS_clone) {
    answer.of.error = MayStartThread() ? 0 : -EAGAIN;
  } else {
    auto thread = static_cast<pid_t>(question.of.data.args[0]);  // 0: the one that asks
    bool own = thread == 0 || syscall(SYS_tgkill, session_, thread, 0) == 0;
    answer.of.error = own ? 0 : -EPERM;
  }
  if (answer.of.error == 0) answer.of.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  ioctl(listener_, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}

bool KeeperProcess::MayStartThread() {
  char path[48];
  struct stat tasks {};
  snprintf(path, sizeof(path), "/proc/%d/task", session_);
  // A folder has two links and one for each folder in it. Where there is no /proc, threads that ended count too.
  long threads = stat(path, &tasks) == 0 ? static_cast<long>(tasks.st_nlink) - 2 : threads_granted_;
  ++threads_granted_;
  return threads < kMostThreads;
}

// What a session prints may go to a terminal: text alone is passed on, and not without end. False when there is none.
bool KeeperProcess::PassOn() {
  char text[4096];
  ssize_t count = read(output_, text, sizeof(text));
  if (count <= 0) return count < 0 && errno == EINTR;
  if (printed_ >= kMostOutput) return true;
  for (ssize_t i = 0; i < count; ++i) {
    if ((text[i] < ' ' || text[i] > '~') && text[i] != '\n' && text[i] != '\t') text[i] = '?';
  }
  WriteAll(log_, text, count);
  printed_ += count;
  if (printed_ >= kMostOutput) dprintf(log_, "\nsession %d: what else it prints is left out\n", session_);
  return true;
}

[[noreturn]] void BecomeKeeper(KeeperProcess keeper, int folder, const std::string& path, int64_t limit_bytes) {
  prctl(PR_SET_NAME, "session-keeper", 0, 0, 0);
  prctl(PR_SET_PDEATHSIG, 0);  // the session's: this process ends after it
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  DropCapabilities();
  if (limit_bytes > 0) {
    rlimit limit{static_cast<rlim_t>(limit_bytes), static_cast<rlim_t>(limit_bytes)};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  keeper.Run();
  RemoveFolderWhole(folder, path);
  _exit(0);
}

}  // namespace

void Keeper::Ask(char verb, const std::string& names, uint64_t bytes) const {
  size_t end = std::min(names.find('\0'), names.size());
  std::string name = names.substr(0, end), to = end < names.size() ? names.substr(end + 1) : "";
  if (name.size() > kMostNameBytes || to.size() > kMostNameBytes) {
    TVM_FFI_THROW(ValueError) << "a file's name has at most " << kMostNameBytes << " bytes";
  }
  Request request{};
  request.verb = verb;
  request.name_bytes = static_cast<uint8_t>(name.size());
  request.to_bytes = static_cast<uint8_t>(to.size());
  request.bytes = bytes;
  std::string message(reinterpret_cast<const char*>(&request), sizeof(request));
  message += name + to;
  if (!WriteAll(fd_, message.data(), message.size())) TVM_FFI_THROW(RuntimeError) << "the session's keeper has ended";
}

void Keeper::AwaitAnswer() const {
  uint32_t length = 0;
  if (!ReadAll(fd_, &length, sizeof(length))) TVM_FFI_THROW(RuntimeError) << "the session's keeper has ended";
  std::string error(length, '\0');
  if (!ReadAll(fd_, error.data(), length)) TVM_FFI_THROW(RuntimeError) << "the session's keeper has ended";
  if (length > 0) TVM_FFI_THROW(ValueError) << error;
}

void Keeper::Write(const std::string& name, const std::string& data) const {
  Ask(kWriteFile, name, data.size());
  AwaitAnswer();
  WriteAll(fd_, data.data(), data.size());
  AwaitAnswer();
}

void Keeper::Copy(const std::string& name, const std::string& to) const {
  Ask(kCopyFile, name + '\0' + to, 0);
  AwaitAnswer();
}

void Keeper::Remove(const std::string& name) const {
  Ask(kRemoveFile, name, 0);
  AwaitAnswer();
}

void Keeper::Supervise(int listener) const {
  Ask(kSupervise, "", 0);
  DescriptorMessage message;
  cmsghdr* header = CMSG_FIRSTHDR(&message.header);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &listener, sizeof(int));
  sendmsg(fd_, &message.header, MSG_NOSIGNAL);
  close(listener);
}

Keeper StartKeeper(int folder, const std::string& path, int64_t limit_bytes) {
  int requests[2], output[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, requests) != 0) return Keeper();
  if (pipe2(output, O_CLOEXEC) != 0) return Keeper();
  pid_t session = getpid(), keeper = fork();
  if (keeper == 0) {
    close(requests[1]);
    close(output[1]);
    int log = dup(STDERR_FILENO);
    for (int own : {STDOUT_FILENO, STDERR_FILENO}) dup2(log, own);
    CloseAllBut({requests[0], output[0], log, folder});
    fcntl(output[0], F_SETFL, O_NONBLOCK);
    BecomeKeeper({session, requests[0], output[0], log, folder, limit_bytes}, folder, path, limit_bytes);
  }
  close(requests[0]);
  close(output[0]);
  for (int own : {STDOUT_FILENO, STDERR_FILENO}) dup2(output[1], own);
  close(output[1]);
  return keeper < 0 ? Keeper() : Keeper(requests[1]);
}

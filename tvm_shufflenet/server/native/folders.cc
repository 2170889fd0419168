#include "folders.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

namespace {

constexpr size_t kQuickFiles = 64;

bool IsFolder(int folder, const char* name) {
  struct stat status {};
  return fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode);
}

// At most `most` names, so that a folder of millions takes no memory.
std::vector<std::string> Names(int folder, size_t most) {
  std::vector<std::string> names;
  int again = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* listing = again < 0 ? nullptr : fdopendir(again);
  if (!listing) return names;
  while (names.size() < most) {
    dirent* entry = readdir(listing);
    if (!entry) break;
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  closedir(listing);
  return names;
}

// It may have been renamed, and even moved elsewhere.
bool RemoveEmpty(int folder, const std::string& path) {
  char link[64], now[4096];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", folder);
  ssize_t length = readlink(link, now, sizeof(now) - 1);
  bool removed = rmdir((length > 0 ? std::string(now, length) : path).c_str()) == 0;
  int reason = errno;
  close(folder);
  errno = reason;
  return removed;
}

// Takes what is in `inner`, a folder in `outer`, out: files are removed, folders moved next to it. So neither the depth
// nor the length of a path matters. Returns whether anything has changed.
bool Unfold(int outer, const std::string& inner, unsigned long* moved) {
  fchmodat(outer, inner.c_str(), 0700, 0);
  int folder = openat(outer, inner.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (folder < 0) return false;
  bool changed = false;
  for (const std::string& name : Names(folder, 1024)) {
    if (!IsFolder(folder, name.c_str())) {
      changed |= unlinkat(folder, name.c_str(), 0) == 0;
      continue;
    }
    fchmodat(folder, name.c_str(), 0700, 0);  // a folder that moves is written to: its ".."
    std::string to = ".removed-" + std::to_string(++*moved);
    changed |= renameat(folder, name.c_str(), outer, to.c_str()) == 0;
  }
  close(folder);
  return unlinkat(outer, inner.c_str(), AT_REMOVEDIR) == 0 || changed;
}

}  // namespace

int OpenFolder(const std::string& path) { return open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }

bool RemoveFolderQuickly(int folder, const std::string& path) {
  fchmod(folder, 0700);
  std::vector<std::string> names = Names(folder, kQuickFiles + 1);
  if (names.size() > kQuickFiles) return false;
  for (const std::string& name : names) {
    if (unlinkat(folder, name.c_str(), 0) != 0) return false;
  }
  int kept = dup(folder);
  if (!RemoveEmpty(folder, path)) {
    dup2(kept, folder);
    close(kept);
    return false;
  }
  close(kept);
  return true;
}

void RemoveFolderWhole(int folder, const std::string& path) {
  fchmod(folder, 0700);
  unsigned long moved = 0;
  bool changed = true;
  while (changed) {
    changed = false;
    for (const std::string& name : Names(folder, 1024)) {
      if (unlinkat(folder, name.c_str(), 0) == 0 || unlinkat(folder, name.c_str(), AT_REMOVEDIR) == 0) changed = true;
      else changed |= Unfold(folder, name, &moved);
    }
  }
  if (!RemoveEmpty(folder, path)) fprintf(stderr, "cannot remove %s: %s\n", path.c_str(), strerror(errno));
}

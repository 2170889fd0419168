#include "sandbox.h"

#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace {

constexpr rlim_t kOpenFiles = 256;
constexpr int kLastCapability = 63;

void Limit(int resource, rlim_t value) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max = std::min(value, limit.rlim_max);
  setrlimit(resource, &limit);
}

}  // namespace

std::string DropRights(const std::string& user, const std::string& work_dir) {
  if (!user.empty()) {
    const passwd* entry = getpwnam(user.c_str());
    if (!entry) return "there is no user '" + user + "'";
    if (entry->pw_uid == 0) return "user '" + user + "' is root";
    if (chown(work_dir.c_str(), entry->pw_uid, entry->pw_gid) != 0 || setgroups(0, nullptr) != 0 ||
        setgid(entry->pw_gid) != 0 || setuid(entry->pw_uid) != 0) {
      return "cannot become '" + user + "': " + strerror(errno);
    }
  }
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);  // an old kernel or an emulator may not know it
  return "";
}

void Confine(const Limits& limits) {
  Limit(RLIMIT_CORE, 0);
  Limit(RLIMIT_NOFILE, kOpenFiles);
  if (limits.memory_bytes > 0) Limit(RLIMIT_AS, limits.memory_bytes);
  if (limits.disk_bytes > 0) Limit(RLIMIT_FSIZE, limits.disk_bytes);
  for (int capability = 0; capability <= kLastCapability; ++capability) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2]{};
  syscall(SYS_capset, &header, none);
}

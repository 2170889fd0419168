#include "sandbox.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <sstream>
#include <utility>

#include "landlock.h"
#include "system_calls.h"

namespace {

constexpr rlim_t kOpenFiles = 256;
constexpr int kLastCapability = 63;
// What TVM reads when a session starts its threads: numbers.
constexpr const char* kKeptVariables[] = {"TVM_NUM_THREADS", "TVM_BIND_THREADS", "OMP_NUM_THREADS"};

std::vector<std::string> library_folders;  // beside the system's: where this program and its libraries are

int oom_score = -1;  // a file that is kept open, for PreferForOom
std::string own_oom_score;

void Limit(int resource, rlim_t value) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max = std::min(value, limit.rlim_max);
  setrlimit(resource, &limit);
}

bool IsNumber(const char* text) {
  return *text && std::all_of(text, text + strlen(text), [](unsigned char c) { return isdigit(c); });
}

void RememberLibraryFolders() {
  char link[PATH_MAX];
  ssize_t length = readlink("/proc/self/exe", link, sizeof(link));
  std::string program(link, std::max<ssize_t>(length, 0));
  if (!program.empty()) library_folders.push_back(program.substr(0, program.rfind('/')));
  const char* listed = getenv("LD_LIBRARY_PATH");
  std::istringstream folders(listed ? listed : "");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (!folder.empty()) library_folders.push_back(folder);
  }
}

}  // namespace

void LeaveEnvironment() {
  static char* kept[std::size(kKeptVariables) + 1];
  RememberLibraryFolders();
  char** next = kept;
  for (const char* name : kKeptVariables) {
    const char* value = getenv(name);
    if (value && IsNumber(value)) *next++ = strdup((std::string(name) + "=" + value).c_str());
  }
  for (char** variable = environ; *variable; ++variable) {  // a session finds them in memory, or in /proc/self/environ
    volatile char* text = *variable;
    while (*text) *text++ = '\0';
  }
  environ = kept;
}

void BeUnseen() {
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  oom_score = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);  // later it would be root's alone
  char text[16];
  ssize_t length = read(oom_score, text, sizeof(text));
  own_oom_score.assign(text, std::max<ssize_t>(length, 0));
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

void PreferForOom(bool preferred) {
  if (oom_score < 0) return;
  std::string text = preferred ? "1000" : own_oom_score;
  if (pwrite(oom_score, text.data(), text.size(), 0) < 0) close(std::exchange(oom_score, -1));
}

void LeaveTerminal() {
  if (oom_score >= 0) close(oom_score);  // it is the server's
  setsid();
  int null = open("/dev/null", O_RDONLY);
  if (null > STDIN_FILENO) {
    dup2(null, STDIN_FILENO);
    close(null);
  }
}

void CloseAllBut(std::vector<int> kept) {
  std::sort(kept.begin(), kept.end());
  kept.push_back(INT_MAX);
  int first = STDERR_FILENO + 1;
  for (int next : kept) {
    if (next < first) continue;
    if (next > first && syscall(CALL_CLOSE_RANGE, first, next - 1, 0) != 0) {  // before Linux 5.9
      rlimit limit{};
      getrlimit(RLIMIT_NOFILE, &limit);
      for (int fd = first; fd < next && static_cast<rlim_t>(fd) < limit.rlim_cur; ++fd) close(fd);
    }
    first = next == INT_MAX ? next : next + 1;
  }
}

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
  if (!user.empty()) prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);  // another user's process is what the system says
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);                 // an old kernel or an emulator may not know it
  return "";
}

void DropCapabilities() {
  for (int capability = 0; capability <= kLastCapability; ++capability) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2]{};
  syscall(SYS_capset, &header, none);
}

void Confine(const Limits& limits) {
  Limit(RLIMIT_CORE, 0);
  Limit(RLIMIT_MEMLOCK, 0);
  Limit(RLIMIT_NOFILE, kOpenFiles);
  if (limits.memory_bytes > 0) Limit(RLIMIT_AS, limits.memory_bytes);
  if (limits.disk_bytes > 0) Limit(RLIMIT_FSIZE, limits.disk_bytes);
  DropCapabilities();
}

bool ConfineFiles(const std::string& folder) {
  int version = landlock_version();
  if (version == 0) return true;
  int rules = landlock_begin(version, 1);
  if (rules < 0) return false;
  landlock_allow_system(rules, version);
  landlock_allow(rules, version, "/proc/self", TO_READ);
  for (const std::string& libraries : library_folders) landlock_allow(rules, version, libraries.c_str(), TO_READ);
  landlock_allow(rules, version, folder.c_str(), TO_READ);
  return landlock_end(rules) == 0;
}

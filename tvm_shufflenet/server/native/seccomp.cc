#include "seccomp.h"

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "system_calls.h"

#ifndef SECCOMP_FILTER_FLAG_SPEC_ALLOW
#define SECCOMP_FILTER_FLAG_SPEC_ALLOW (1UL << 2)
#endif
#ifndef SECCOMP_FILTER_FLAG_NEW_LISTENER
#define SECCOMP_FILTER_FLAG_NEW_LISTENER (1UL << 3)
#endif
#ifndef SECCOMP_GET_ACTION_AVAIL
#define SECCOMP_GET_ACTION_AVAIL 2
#endif

namespace {

// Kernels before 5.16 slow a filtered process down, by up to a third, to protect it against speculation; its times
// would no longer be those of the device. Kernels before 4.17 know neither the flag nor the protection.
long Install(call_filter* filter, unsigned long flags) {
  sock_fprog program = program_of(filter);
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags | SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program);
}

// Linux 5.5 learnt to go on with a call that somebody else has decided on. That cannot be asked for; close_range, which
// can, is of 5.9.
bool CanContinueCalls() {
  uint32_t action = SECCOMP_RET_USER_NOTIF;
  if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) != 0) return false;
  return syscall(CALL_CLOSE_RANGE, ~0U, ~0U, 0) == 0;
}

}  // namespace

bool SeccompAvailable() {
  // A filter that cannot be read: a kernel that knows filters looks for it, others refuse the request itself.
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, nullptr, 0, 0) != 0 && errno == EFAULT;
}

int SuperviseThreads() {
  if (!CanContinueCalls()) return -1;
  call_filter filter;
  supervised_filter(&filter);
  return static_cast<int>(Install(&filter, SECCOMP_FILTER_FLAG_NEW_LISTENER));
}

bool FilterSystemCalls() {
  call_filter filter;
  session_filter(&filter, NATIVE_SESSION, static_cast<uint32_t>(getpid()));
  if (Install(&filter, 0) == 0) return true;
  sock_fprog program = program_of(&filter);
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

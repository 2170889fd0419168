#include "seccomp.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

// Calls that are younger than the headers this is compiled with; their numbers are the same everywhere.
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#endif
#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#define SYS_fsopen 430
#define SYS_fsmount 432
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

namespace {

#if defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#elif defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
constexpr uint32_t kX32Bit = 0x40000000;  // the same calls once more, under other numbers
#endif

constexpr uint32_t kRefused[] = {
    // Other programs.
    SYS_execve, SYS_execveat,
    // Other processes: to look into them, to signal them by a handle, to be unseen by them.
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_pidfd_send_signal, SYS_pidfd_getfd,
    // Connections: the session has its own. io_uring would make calls that no filter sees.
    SYS_socket, SYS_socketpair, SYS_bind, SYS_listen, SYS_connect, SYS_accept, SYS_accept4, SYS_io_uring_setup,
    // The file system as others see it.
    SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_open_tree, SYS_move_mount, SYS_fsopen, SYS_fsmount,
    SYS_mount_setattr, SYS_open_by_handle_at, SYS_name_to_handle_at, SYS_swapon, SYS_swapoff, SYS_quotactl, SYS_acct,
    // The kernel and the machine.
    SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_kexec_load, SYS_kexec_file_load, SYS_init_module,
    SYS_finit_module, SYS_delete_module, SYS_reboot, SYS_syslog, SYS_settimeofday, SYS_clock_settime, SYS_adjtimex,
    SYS_clock_adjtime, SYS_sethostname, SYS_setdomainname,
    // Other rights, other name spaces.
    SYS_unshare, SYS_setns, SYS_add_key, SYS_request_key, SYS_keyctl, SYS_personality, SYS_vhangup,
#if defined(__x86_64__)
    SYS_fork, SYS_vfork, SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_uselib,
#endif
};

constexpr uint32_t kAllow = SECCOMP_RET_ALLOW, kKill = SECCOMP_RET_KILL_PROCESS;
constexpr uint32_t kNo = SECCOMP_RET_ERRNO | EPERM, kUnknown = SECCOMP_RET_ERRNO | ENOSYS;

constexpr uint32_t Argument(int index) {  // its lower half, which both architectures have first in memory
  return offsetof(seccomp_data, args) + index * sizeof(uint64_t);
}

// The program in the order it runs. Each test falls through where it does not match.
class Program {
 public:
  void Load(uint32_t offset) { code_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset)); }
  void Return(uint32_t action) { code_.push_back(BPF_STMT(BPF_RET | BPF_K, action)); }
  void ReturnIf(uint32_t value, uint32_t action) { Test(BPF_JEQ, value, 0, 1, action); }
  void ReturnUnless(uint32_t value, uint32_t action) { Test(BPF_JEQ, value, 1, 0, action); }
  void ReturnIfAbove(uint32_t value, uint32_t action) { Test(BPF_JGE, value, 0, 1, action); }
  void ReturnUnlessSet(uint32_t bits, uint32_t action) { Test(BPF_JSET, bits, 1, 0, action); }

  // Of call `number`, only where the argument just named by `index` is `value`; a call of another number goes on.
  void OnlyWith(uint32_t number, int index, uint32_t value) {
    code_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4));
    Load(Argument(index));
    ReturnUnless(value, kNo);
    Return(kAllow);
  }
  // The same for a set of bits of which one must be there.
  void OnlyWithBits(uint32_t number, int index, uint32_t bits) {
    code_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4));
    Load(Argument(index));
    ReturnUnlessSet(bits, kNo);
    Return(kAllow);
  }

  sock_fprog get() { return {static_cast<unsigned short>(code_.size()), code_.data()}; }

 private:
  void Test(uint16_t how, uint32_t value, uint8_t if_true, uint8_t if_false, uint32_t action) {
    code_.push_back(BPF_JUMP(static_cast<uint16_t>(BPF_JMP | how | BPF_K), value, if_true, if_false));
    Return(action);
  }

  std::vector<sock_filter> code_;
};

Program Rules() {
  Program rules;
  rules.Load(offsetof(seccomp_data, arch));
  rules.ReturnUnless(kArchitecture, kKill);  // calls of a 32-bit program have other numbers
  rules.Load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
  rules.ReturnIfAbove(kX32Bit, kKill);
#endif
  for (uint32_t number : kRefused) rules.ReturnIf(number, kNo);
  // Threads, but no processes. What clone3 asks for is in memory, out of a filter's sight: libc then takes clone.
  rules.ReturnIf(SYS_clone3, kUnknown);
  rules.OnlyWithBits(SYS_clone, 0, CLONE_THREAD);
  // Signals only to itself: the server and other sessions belong to the same user.
  auto self = static_cast<uint32_t>(getpid());
  rules.OnlyWith(SYS_kill, 0, self);
  rules.OnlyWith(SYS_tgkill, 0, self);
  rules.ReturnIf(SYS_tkill, kNo);
  rules.Return(kAllow);
  return rules;
}

}  // namespace

bool SeccompAvailable() {
  // A filter that cannot be read: a kernel that knows filters looks for it, others refuse the request itself.
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, nullptr, 0, 0) != 0 && errno == EFAULT;
}

bool FilterSystemCalls() {
  Program rules = Rules();
  sock_fprog program = rules.get();
  // Kernels before 5.16 slow a filtered process down, by up to a third, to protect it against speculation; its times
  // would no longer be those of the device. Kernels before 4.17 know neither the flag nor the protection.
#ifdef SECCOMP_FILTER_FLAG_SPEC_ALLOW
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) == 0) return true;
#endif
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

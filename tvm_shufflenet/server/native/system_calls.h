/* The system calls that a session may make, as a filter for the kernel. Plain C: the device server includes it, and so
 * does the plugin that confines QEMU's own process.
 *
 * It is a list of what is allowed. Whatever is not on it fails with EPERM, and with ENOSYS where the C library has
 * another way: what clone3 and openat2 ask for lies in memory, out of a filter's sight, and calls that are younger than
 * this list look like those of an older kernel.
 */
#ifndef SYSTEM_CALLS_H
#define SYSTEM_CALLS_H

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* Calls that are younger than the headers this is compiled with; their numbers are the same everywhere. */
#ifndef SYS_statx
#define SYS_statx 0xffffffff
#endif
#ifndef SYS_rseq
#if defined(__x86_64__)
#define SYS_rseq 334
#else
#define SYS_rseq 293
#endif
#endif
enum { CALL_CLONE3 = 435, CALL_CLOSE_RANGE = 436, CALL_OPENAT2 = 437, CALL_FACCESSAT2 = 439, CALL_FUTEX_WAITV = 449 };
enum { FIRST_UNKNOWN_CALL = 450 };

#if defined(__aarch64__)
#define OWN_ARCHITECTURE AUDIT_ARCH_AARCH64
#elif defined(__x86_64__)
#define OWN_ARCHITECTURE AUDIT_ARCH_X86_64
#define X32_BIT 0x40000000u /* the same calls once more, under other numbers */
#endif

#ifndef SECCOMP_RET_KILL_PROCESS
#define SECCOMP_RET_KILL_PROCESS 0x80000000U
#endif
#ifndef SECCOMP_RET_USER_NOTIF
#define SECCOMP_RET_USER_NOTIF 0x7fc00000U
#endif
#define REFUSE (SECCOMP_RET_ERRNO | EPERM)

/* What a session on a device does and what one under QEMU does in its stead: the latter writes files itself. */
enum session_kind { NATIVE_SESSION, EMULATED_SESSION };

static const uint32_t allowed_calls[] = {
    /* The connection, which is open already. */
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_recvfrom, SYS_getsockopt, SYS_getsockname, SYS_getpeername,
    SYS_shutdown, SYS_close, SYS_ppoll, SYS_pselect6,
    /* Memory. */
    SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_madvise, SYS_brk, SYS_mincore, SYS_msync, SYS_membarrier,
    /* Threads and time. */
    SYS_futex, CALL_FUTEX_WAITV, SYS_sched_yield, SYS_sched_getaffinity, SYS_sched_getparam, SYS_sched_getscheduler,
    SYS_sched_get_priority_max, SYS_sched_get_priority_min, SYS_getcpu, SYS_set_robust_list, SYS_rseq,
    SYS_set_tid_address, SYS_exit, SYS_exit_group, SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep,
    SYS_nanosleep, SYS_gettimeofday, SYS_times, SYS_getrusage, SYS_restart_syscall,
    /* Its own signals. */
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending, SYS_rt_sigsuspend, SYS_sigaltstack,
    /* To read files. */
    SYS_pread64, SYS_preadv, SYS_lseek, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_statfs, SYS_fstatfs, SYS_readlinkat,
    SYS_faccessat, CALL_FACCESSAT2, SYS_getdents64, SYS_getcwd, SYS_dup, SYS_dup3, SYS_fadvise64, CALL_CLOSE_RANGE,
    /* Who and where it is. */
    SYS_getpid, SYS_gettid, SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_uname, SYS_sysinfo,
    SYS_getrandom, SYS_getpriority,
#if defined(__x86_64__)
    SYS_poll, SYS_select, SYS_stat, SYS_lstat, SYS_readlink, SYS_access, SYS_getdents, SYS_dup2, SYS_time,
    SYS_getrlimit,
#endif
};

/* QEMU makes its guest's calls and its own: it writes what was uploaded and counted, where Landlock lets it. */
static const uint32_t allowed_to_qemu[] = {
    SYS_openat, SYS_unlinkat, SYS_renameat2, SYS_copy_file_range, SYS_sendfile,
#if defined(SYS_renameat)
    SYS_renameat,
#endif
#if defined(SYS_memfd_create)
    SYS_memfd_create,
#endif
#if defined(__x86_64__)
    SYS_open, SYS_unlink, SYS_rename,
#endif
};

static const uint32_t unknown_calls[] = {CALL_CLONE3, CALL_OPENAT2};

/* The program in the order it runs. A test that does not match goes on with the next one. */
enum { MOST_INSTRUCTIONS = 640 };
struct call_filter {
    struct sock_filter code[MOST_INSTRUCTIONS];
    unsigned length, checked;
};

static inline void append(struct call_filter *filter, uint16_t code, uint32_t value, uint8_t if_true, uint8_t if_false)
{
    struct sock_filter instruction = {code, if_true, if_false, value};
    if (filter->length < MOST_INSTRUCTIONS)
        filter->code[filter->length++] = instruction;
}

static inline void load(struct call_filter *filter, size_t offset)
{
    append(filter, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static inline void end_with(struct call_filter *filter, uint32_t action)
{
    append(filter, BPF_RET | BPF_K, action, 0, 0);
}

static inline void end_if(struct call_filter *filter, uint16_t how, uint32_t value, uint32_t action)
{
    append(filter, BPF_JMP | how | BPF_K, value, 0, 1);
    end_with(filter, action);
}

static inline void end_unless(struct call_filter *filter, uint16_t how, uint32_t value, uint32_t action)
{
    append(filter, BPF_JMP | how | BPF_K, value, 1, 0);
    end_with(filter, action);
}

static inline void allow(struct call_filter *filter, const uint32_t *numbers, size_t count, uint32_t action)
{
    for (size_t i = 0; i < count; i++)
        end_if(filter, BPF_JEQ, numbers[i], action);
}

/* Between these two stand the conditions on one call's arguments; who meets them all may make the call. */
static inline void check(struct call_filter *filter, uint32_t number)
{
    filter->checked = filter->length;
    append(filter, BPF_JMP | BPF_JEQ | BPF_K, number, 0, 0);
}

static inline void checked(struct call_filter *filter, uint32_t action)
{
    end_with(filter, action);
    filter->code[filter->checked].jf = (uint8_t)(filter->length - filter->checked - 1);
}

/* The lower half of an argument, which both architectures have first in memory, and the upper one. */
static inline size_t low(int index)
{
    return offsetof(struct seccomp_data, args) + index * sizeof(uint64_t);
}

static inline size_t high(int index)
{
    return low(index) + sizeof(uint32_t);
}

/* Arguments that the kernel takes as 32 bits. */
static inline void argument_is(struct call_filter *filter, int index, uint32_t value)
{
    load(filter, low(index));
    end_unless(filter, BPF_JEQ, value, REFUSE);
}

static inline void argument_is_either(struct call_filter *filter, int index, uint32_t value, uint32_t other)
{
    load(filter, low(index));
    append(filter, BPF_JMP | BPF_JEQ | BPF_K, value, 2, 0);
    append(filter, BPF_JMP | BPF_JEQ | BPF_K, other, 1, 0);
    end_with(filter, REFUSE);
}

static inline void argument_is_of(struct call_filter *filter, int index, const uint32_t *values, size_t count)
{
    load(filter, low(index));
    for (size_t i = 0; i < count; i++)
        append(filter, BPF_JMP | BPF_JEQ | BPF_K, values[i], (uint8_t)(count - i), 0);
    end_with(filter, REFUSE);
}

static inline void argument_has(struct call_filter *filter, int index, uint32_t all, uint32_t none)
{
    load(filter, low(index));
    append(filter, BPF_ALU | BPF_AND | BPF_K, all | none, 0, 0);
    end_unless(filter, BPF_JEQ, all, REFUSE);
}

/* A pointer, or another argument of 64 bits. */
static inline void argument_is_null(struct call_filter *filter, int index)
{
    argument_is(filter, index, 0);
    load(filter, high(index));
    end_unless(filter, BPF_JEQ, 0, REFUSE);
}

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Threads, but no processes and no name spaces. */
static inline void check_threads(struct call_filter *filter, enum session_kind kind, uint32_t self)
{
    const uint32_t thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
    const uint32_t spaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET |
                            0x02000000 /* CLONE_NEWCGROUP */;
    check(filter, SYS_clone);
    argument_has(filter, 0, thread, spaces | CLONE_PTRACE | CLONE_PARENT | CLONE_VFORK);
    checked(filter, SECCOMP_RET_ALLOW);
    /* A thread pool names its threads one by one. That they are the session's own is checked by who supervises it. */
    check(filter, SYS_sched_setaffinity);
    if (kind == EMULATED_SESSION)
        argument_is_either(filter, 0, 0, self);
    checked(filter, SECCOMP_RET_ALLOW);
}

/* Signals and limits of nobody but itself: the server and other sessions belong to the same user. */
static inline void check_others(struct call_filter *filter, uint32_t self)
{
    static const uint32_t signals[] = {SYS_kill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo};
    for (size_t i = 0; i < COUNT(signals); i++) {
        check(filter, signals[i]);
        argument_is(filter, 0, self);
        checked(filter, SECCOMP_RET_ALLOW);
    }
    check(filter, SYS_prlimit64);
    argument_is_either(filter, 0, 0, self);
    argument_is_null(filter, 2); /* reads only */
    checked(filter, SECCOMP_RET_ALLOW);
}

static inline void check_descriptors(struct call_filter *filter)
{
    /* Neither who is signalled when a file is ready, nor locks and leases. */
    static const uint32_t commands[] = {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL};
    check(filter, SYS_fcntl);
    argument_is_of(filter, 1, commands, COUNT(commands));
    checked(filter, SECCOMP_RET_ALLOW);
    static const uint32_t requests[] = {FIONREAD, FIOCLEX, FIONCLEX, TCGETS, TIOCGWINSZ};
    check(filter, SYS_ioctl);
    argument_is_of(filter, 1, requests, COUNT(requests));
    checked(filter, SECCOMP_RET_ALLOW);
    check(filter, SYS_sendto); /* over the connection, to nobody else */
    argument_is_null(filter, 4);
    checked(filter, SECCOMP_RET_ALLOW);
}

static inline void check_process(struct call_filter *filter)
{
    static const uint32_t options[] = {PR_SET_NAME, PR_GET_NAME, 0x53564d41 /* PR_SET_VMA */, PR_GET_DUMPABLE};
    check(filter, SYS_prctl);
    argument_is_of(filter, 0, options, COUNT(options));
    checked(filter, SECCOMP_RET_ALLOW);
#if defined(__x86_64__)
    static const uint32_t codes[] = {0x1021, 0x1022, 0x1023}; /* ARCH_*_XCOMP_*: registers of AMX */
    check(filter, SYS_arch_prctl);
    argument_is_of(filter, 0, codes, COUNT(codes));
    checked(filter, SECCOMP_RET_ALLOW);
#endif
}

/* Files are opened to be read. Another process writes those of a session, and counts them (keeper.h). */
static inline void check_reading(struct call_filter *filter)
{
    const uint32_t writing = O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND | 020000000 /* O_TMPFILE, without O_DIRECTORY */;
    check(filter, SYS_openat);
    argument_has(filter, 2, O_RDONLY, writing);
    checked(filter, SECCOMP_RET_ALLOW);
#if defined(__x86_64__)
    check(filter, SYS_open);
    argument_has(filter, 1, O_RDONLY, writing);
    checked(filter, SECCOMP_RET_ALLOW);
#endif
}

/* What process ``self`` may do from when the filter is installed. */
static inline void session_filter(struct call_filter *filter, enum session_kind kind, uint32_t self)
{
    filter->length = 0;
    load(filter, offsetof(struct seccomp_data, arch));
    end_unless(filter, BPF_JEQ, OWN_ARCHITECTURE, SECCOMP_RET_KILL_PROCESS); /* a 32-bit program's have other numbers */
    load(filter, offsetof(struct seccomp_data, nr));
#if defined(__x86_64__)
    end_if(filter, BPF_JGE, X32_BIT, SECCOMP_RET_KILL_PROCESS);
#endif
    allow(filter, allowed_calls, COUNT(allowed_calls), SECCOMP_RET_ALLOW);
    if (kind == EMULATED_SESSION)
        allow(filter, allowed_to_qemu, COUNT(allowed_to_qemu), SECCOMP_RET_ALLOW);
    else
        check_reading(filter);
    check_threads(filter, kind, self);
    check_others(filter, self);
    check_descriptors(filter);
    check_process(filter);
    allow(filter, unknown_calls, COUNT(unknown_calls), SECCOMP_RET_ERRNO | ENOSYS);
    end_if(filter, BPF_JGE, FIRST_UNKNOWN_CALL, SECCOMP_RET_ERRNO | ENOSYS);
    end_with(filter, REFUSE);
}

/* Whoever listens decides on these, of what the filter above lets pass: threads are counted, and known by number. */
static inline void supervised_filter(struct call_filter *filter)
{
    static const uint32_t numbers[] = {SYS_clone, SYS_sched_setaffinity};
    filter->length = 0;
    load(filter, offsetof(struct seccomp_data, nr));
    allow(filter, numbers, COUNT(numbers), SECCOMP_RET_USER_NOTIF);
    end_with(filter, SECCOMP_RET_ALLOW);
}

static inline struct sock_fprog program_of(struct call_filter *filter)
{
    struct sock_fprog program = {(unsigned short)filter->length, filter->code};
    return program;
}

#endif

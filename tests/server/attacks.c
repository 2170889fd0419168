/* What code in a session might try against the server, its other sessions and the machine: one function each, in a
 * library that TVM loads like any other. It returns what the attempt came to: 0 or more where it succeeded, -errno where
 * it was refused. An argument, if there is one, is a number, such as a process to be attacked.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

struct any { /* TVMFFIAny */
    int32_t type, padding;
    int64_t number;
};
enum { INTEGER = 1 };

#define ATTACK(name)                                                                          \
    static long name(long);                                                                   \
    int __tvm_ffi_##name(void *self, const struct any *args, int32_t count, struct any *result) \
    {                                                                                         \
        errno = 0;                                                                            \
        long returned = name(count > 0 ? args[0].number : 0);                                 \
        result->type = INTEGER;                                                               \
        result->number = returned < 0 ? -(errno ? errno : EIO) : returned;                    \
        return 0;                                                                             \
    }                                                                                         \
    static long name(long argument)

/* Other processes. */
ATTACK(kill_one) { return kill(argument, 0); }
ATTACK(kill_group) { return kill(0, 0); }
ATTACK(kill_all) { return kill(-1, 0); }
ATTACK(tgkill_one) { return syscall(SYS_tgkill, argument, argument, 0); }
ATTACK(tkill_one) { return syscall(SYS_tkill, argument, 0); }
static siginfo_t queued(void)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_code = SI_QUEUE;
    info.si_pid = getpid();
    info.si_uid = getuid();
    return info;
}
ATTACK(queue_signal)
{
    siginfo_t info = queued();
    return syscall(SYS_rt_sigqueueinfo, argument, 0, &info);
}
ATTACK(queue_signal_to_thread)
{
    siginfo_t info = queued();
    return syscall(SYS_rt_tgsigqueueinfo, argument, argument, 0, &info);
}
ATTACK(read_limits_of_others)
{
    struct rlimit limit;
    return syscall(SYS_prlimit64, argument, RLIMIT_NOFILE, NULL, &limit);
}
ATTACK(limit_others)
{
    struct rlimit limit = {0, 0};
    return syscall(SYS_prlimit64, argument, RLIMIT_CORE, &limit, NULL);
}
ATTACK(slow_down) { return syscall(SYS_setpriority, PRIO_PROCESS, argument, 1); }
ATTACK(schedule_others)
{
    struct sched_param none = {0};
    return syscall(SYS_sched_setscheduler, argument, SCHED_BATCH, &none);
}
ATTACK(set_parameters_of_others)
{
    struct sched_param none = {0};
    return syscall(SYS_sched_setparam, argument, &none);
}
ATTACK(set_attributes_of_others)
{
    struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t times[3]; } attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.size = sizeof attributes;
    attributes.nice = 2;
    return syscall(SYS_sched_setattr, argument, &attributes, 0);
}
ATTACK(pin_others)
{
    unsigned long first = 1;
    return syscall(SYS_sched_setaffinity, argument, sizeof first, &first);
}
ATTACK(pin_itself)
{
    unsigned long all[16];
    long bytes = syscall(SYS_sched_getaffinity, 0, sizeof all, all);
    return bytes < 0 ? bytes : syscall(SYS_sched_setaffinity, syscall(SYS_gettid), bytes, all);
}
ATTACK(set_io_priority_of_others) { return syscall(SYS_ioprio_set, 1, argument, (2 << 13) | 7); }
ATTACK(trace) { return syscall(SYS_ptrace, 0x4206 /* PTRACE_SEIZE */, argument, 0, 0); }
ATTACK(open_process) { return syscall(434 /* pidfd_open */, argument, 0); }
static long open_of(long pid, const char *name, int flags)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/%s", pid, name);
    int file = open(path, flags);
    if (file >= 0)
        close(file);
    return file;
}
ATTACK(read_memory) { return open_of(argument, "mem", O_RDONLY); }
ATTACK(write_memory) { return open_of(argument, "mem", O_RDWR); }
ATTACK(read_environment) { return open_of(argument, "environ", O_RDONLY); }
ATTACK(read_maps) { return open_of(argument, "maps", O_RDONLY); }
ATTACK(sacrifice) { return open_of(argument, "oom_score_adj", O_WRONLY); }
ATTACK(write_process_memory)
{
    char byte = 0;
    struct iovec own = {&byte, 1}, other = {(void *)0x1000, 1};
    return syscall(SYS_process_vm_writev, argument, &own, 1, &other, 1, 0);
}

/* Its own process, made into more than it is. */
ATTACK(fork_one)
{
    pid_t child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0)
        _exit(0);
    return child;
}
ATTACK(share_memory_with_child) { return syscall(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0); }
ATTACK(clone_by_structure)
{
    uint64_t arguments[11] = {CLONE_VM};
    return syscall(435 /* clone3 */, arguments, 1);
}
ATTACK(user_name_space) { return syscall(SYS_unshare, CLONE_NEWUSER); }
ATTACK(become_dumpable) { return prctl(PR_SET_DUMPABLE, 1); }
ATTACK(outlive_the_server) { return prctl(PR_SET_PDEATHSIG, 0); }
ATTACK(let_others_trace) { return prctl(PR_SET_PTRACER, -1ul); }
ATTACK(raise_limits)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    return setrlimit(RLIMIT_NOFILE, &limit);
}
ATTACK(new_session) { return setsid(); }
ATTACK(become_root) { return setuid(getuid()); }
ATTACK(ask_personality) { return syscall(SYS_personality, 0xffffffff); }

/* What signals, locks and terminals reach. */
static int connection(void)
{
    for (int file = 3; file < 64; file++) {
        struct sockaddr_storage address;
        socklen_t length = sizeof address;
        if (getpeername(file, (struct sockaddr *)&address, &length) == 0 && address.ss_family != AF_UNIX)
            return file;
    }
    return -1;
}
ATTACK(signal_by_file) { return fcntl(connection(), F_SETOWN, argument); }
ATTACK(signal_by_file_owner)
{
    struct { int type, pid; } owner = {1 /* F_OWNER_PID */, argument};
    return fcntl(connection(), F_SETOWN_EX, &owner);
}
ATTACK(choose_signal_of_file) { return fcntl(connection(), F_SETSIG, SIGKILL); }
ATTACK(signal_when_ready) { return fcntl(connection(), F_SETFL, O_ASYNC); }
ATTACK(watch_folder) { return fcntl(open(".", O_RDONLY), 1026 /* F_NOTIFY */, 0x2 /* DN_MODIFY */); }
ATTACK(lease) { return fcntl(open("attacks.so", O_RDONLY), F_SETLEASE, F_RDLCK); }
ATTACK(lock_file) { return flock(open("attacks.so", O_RDONLY), LOCK_EX); }
ATTACK(lock_record)
{
    struct flock lock = {.l_type = F_RDLCK};
    return fcntl(open("attacks.so", O_RDONLY), F_SETLK, &lock);
}
ATTACK(type_on_stderr) { return ioctl(2, TIOCSTI, "x"); }
ATTACK(type_on_stdin) { return ioctl(0, TIOCSTI, "x"); }
ATTACK(open_terminal) { return open("/dev/tty", O_RDWR); }
ATTACK(cut_log) { return ftruncate(2, 0); }
ATTACK(is_terminal) { return isatty(0) || isatty(1) || isatty(2) ? 0 : -1; }

/* What stays behind, or that no limit counts. */
ATTACK(shared_memory) { return shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600); }
ATTACK(semaphores) { return syscall(SYS_semget, IPC_PRIVATE, 1, IPC_CREAT | 0600); }
ATTACK(message_queue) { return syscall(SYS_msgget, IPC_PRIVATE, IPC_CREAT | 0600); }
ATTACK(posix_queue) { return syscall(SYS_mq_open, "attack", O_CREAT | O_RDWR, 0600, 0); }
ATTACK(posix_shared_memory) { return open("/dev/shm/attack", O_CREAT | O_RDWR, 0600); }
ATTACK(memory_file) { return syscall(SYS_memfd_create, "attack", 0); }
ATTACK(key) { return syscall(SYS_add_key, "user", "attack", "x", 1, -3 /* process keyring */); }
ATTACK(lock_memory)
{
    struct rlimit limit;
    getrlimit(RLIMIT_MEMLOCK, &limit);
    return limit.rlim_cur > 0 ? 0 : -1;
}
ATTACK(timer)
{
    int id;
    return syscall(SYS_timer_create, CLOCK_REALTIME, NULL, &id);
}
ATTACK(event_file) { return syscall(SYS_eventfd2, 0, 0); }
ATTACK(watch_files) { return syscall(SYS_inotify_init1, 0); }
ATTACK(pipe_pair)
{
    int ends[2];
    return syscall(SYS_pipe2, ends, 0);
}
ATTACK(write_file)
{
    int file = open("attack", O_CREAT | O_WRONLY, 0600);
    return file < 0 ? file : write(file, "x", 1);
}
ATTACK(write_unnamed_file) { return open(".", O_TMPFILE | O_RDWR, 0600); }
ATTACK(open_by_structure)
{
    uint64_t how[3] = {O_CREAT | O_WRONLY, 0600, 0};
    return syscall(437 /* openat2 */, AT_FDCWD, "attack", how, sizeof how);
}
ATTACK(append_to_file) { return open("attacks.so", O_RDWR | O_APPEND); }
ATTACK(empty_file) { return open("attacks.so", O_RDONLY | O_TRUNC); }
ATTACK(cut_file) { return truncate("attacks.so", 1 << 20); }
ATTACK(make_folder) { return mkdir("folder", 0); }
ATTACK(make_fifo) { return mkfifo("fifo", 0600); }
ATTACK(make_link) { return symlink("/", "link"); }
ATTACK(make_hard_link) { return link("attacks.so", "hard-link"); }
ATTACK(remove_file) { return unlink("attacks.so"); }
ATTACK(rename_file) { return rename("attacks.so", "attacks2.so"); }
ATTACK(hide_folder) { return chmod(".", 0); }
ATTACK(rename_folder)
{
    char here[4096], there[4200];
    if (!getcwd(here, sizeof here))
        return -1;
    snprintf(there, sizeof there, "%s-renamed", here);
    return rename(here, there);
}
ATTACK(set_times) { return utimensat(AT_FDCWD, "attacks.so", NULL, 0); }
ATTACK(set_attribute) { return syscall(SYS_setxattr, "attacks.so", "user.attack", "x", 1, 0); }
ATTACK(nest_folders)
{
    for (long depth = 0; depth < argument; depth++)
        if (mkdir("nested", 0700) || chdir("nested"))
            return -1;
    return 0;
}
ATTACK(open_canary) { return open("/tmp/tvm-shufflenet-attack-canary", O_RDONLY); }
ATTACK(list_home) { return open("/root", O_RDONLY | O_DIRECTORY); }

/* The machine and the network. */
ATTACK(new_socket) { return socket(AF_INET, SOCK_STREAM, 0); }
ATTACK(new_local_socket) { return socket(AF_UNIX, SOCK_STREAM, 0); }
ATTACK(pair_of_sockets)
{
    int ends[2];
    return socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
}
ATTACK(send_elsewhere)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    long sent = sendto(connection(), "", 0, 0, (struct sockaddr *)&address, sizeof address);
    return sent < 0 && errno != EPERM ? 0 : sent;
}
ATTACK(send_message)
{
    struct iovec nothing = {"", 0};
    struct msghdr message = {.msg_iov = &nothing, .msg_iovlen = 1};
    return sendmsg(connection(), &message, 0);
}
ATTACK(set_socket_option)
{
    int on = 1;
    return setsockopt(connection(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}
ATTACK(ring) { return syscall(425 /* io_uring_setup */, 1, NULL) < 0 && errno == EFAULT ? 0 : -1; }
ATTACK(mount_something) { return mount("none", "/mnt", "tmpfs", 0, NULL); }

/* Threads: how many there may be at once. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static void *wait_at_gate(void *unused)
{
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    return unused;
}
ATTACK(count_threads)
{
    static pthread_t threads[5000];
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 16);
    pthread_mutex_lock(&gate);
    long count = 0;
    while (count < argument && pthread_create(&threads[count], &attributes, wait_at_gate, NULL) == 0)
        count++;
    pthread_mutex_unlock(&gate);
    for (long i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    return count;
}

/* Bytes of the environment that the server was started with: a session finds it in its own memory. */
ATTACK(environment_bytes)
{
    char text[4096];
    long count = 0, now;
    int file = open("/proc/self/environ", O_RDONLY);
    if (file < 0)
        return -1;
    while ((now = read(file, text, sizeof text)) > 0)
        for (long i = 0; i < now; i++)
            count += text[i] != 0;
    for (char **variable = environ; *variable; variable++)
        count += strncmp(*variable, "TVM_", 4) && strncmp(*variable, "OMP_", 4) ? 1000000 : 0;
    return count;
}

/* Output: escapes for a terminal, and more than anybody wants to keep. */
ATTACK(print)
{
    static char text[4096];
    memset(text, '\x1b', sizeof text);
    for (long i = 0; i < argument; i++)
        if (write(2, text, sizeof text) < 0)
            return -1;
    return 0;
}

/* A mapping of a file keeps what is no longer in any folder. */
ATTACK(map_file)
{
    int file = open("ballast", O_RDONLY);
    return file < 0 || mmap(NULL, 1 << 19, PROT_READ, MAP_SHARED, file, 0) == MAP_FAILED ? -1 : 0;
}

/* Landlock, by which a process of any user gives up the files that it does not need (Linux 5.13). Plain C, like
 * system_calls.h; its own header is younger than what this is compiled with.
 */
#ifndef LANDLOCK_H
#define LANDLOCK_H

#include <fcntl.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LANDLOCK_CREATE = 444, LANDLOCK_ADD = 445, LANDLOCK_RESTRICT = 446 };

/* Rights by their bits. All others of a version that has them are refused everywhere. */
enum {
    FILE_WRITE = 1 << 1, FILE_READ = 1 << 2, FOLDER_READ = 1 << 3, REMOVE_FILE = 1 << 5, REMOVE_FOLDER = 1 << 4,
    MAKE_FOLDER = 1 << 7, MAKE_FILE = 1 << 8, FILE_TRUNCATE = 1 << 14,
};
enum { TO_READ = FILE_READ | FOLDER_READ };
enum { TO_WRITE = FILE_WRITE | REMOVE_FILE | REMOVE_FOLDER | MAKE_FOLDER | MAKE_FILE | FILE_TRUNCATE };

struct landlock_rules { /* landlock_ruleset_attr */
    uint64_t files, net, scoped;
};

struct __attribute__((packed)) landlock_rule { /* landlock_path_beneath_attr */
    uint64_t allowed;
    int32_t folder;
};

/* The version of the interface, 0 where the kernel has none. */
static inline int landlock_version(void)
{
    long version = syscall(LANDLOCK_CREATE, NULL, (size_t)0, 1u);
    return version < 0 ? 0 : (int)version;
}

/* Rights over files that version ``version`` knows. */
static inline uint64_t landlock_rights(int version)
{
    unsigned bits = 13 + (version >= 2) + (version >= 3) + (version >= 5);
    return (1ull << bits) - 1;
}

/* A set of rules that allows nothing yet, or -1. With ``alone``, of the network and of other processes neither. */
static inline int landlock_begin(int version, int alone)
{
    struct landlock_rules rules = {landlock_rights(version), 0, 0};
    size_t size = sizeof rules.files;
    if (alone && version >= 4) {
        rules.net = 3; /* TCP: bind, connect */
        size = 2 * sizeof rules.files;
    }
    if (alone && version >= 6) {
        rules.scoped = 3; /* abstract sockets, signals */
        size = sizeof rules;
    }
    return (int)syscall(LANDLOCK_CREATE, &rules, size, 0u);
}

/* Allows ``rights`` over what is at ``path`` and below; nothing where nothing is there. */
static inline void landlock_allow(int ruleset, int version, const char *path, uint64_t rights)
{
    struct landlock_rule rule = {rights & landlock_rights(version), open(path, O_PATH | O_CLOEXEC)};
    struct stat status;
    if (rule.folder < 0)
        return;
    if (fstat(rule.folder, &status) == 0 && !S_ISDIR(status.st_mode))
        rule.allowed &= FILE_WRITE | FILE_READ | FILE_TRUNCATE;
    syscall(LANDLOCK_ADD, ruleset, 1, &rule, 0u);
    close(rule.folder);
}

/* Puts the rules into force for this thread and all that it starts. Returns 0, or -1 and errno. */
static inline int landlock_end(int ruleset)
{
    int failed = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || syscall(LANDLOCK_RESTRICT, ruleset, 0u) != 0;
    close(ruleset);
    return failed ? -1 : 0;
}

/* What every program reads that loads libraries and asks for the machine. */
static const char *const system_files[] = {
    "/lib", "/lib64", "/lib32", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", "/etc/ld.so.cache",
    "/etc/localtime", "/usr/share/zoneinfo", "/sys/devices/system", "/proc/cpuinfo", "/proc/meminfo",
    "/proc/stat", "/proc/sys/vm/overcommit_memory", "/dev/null", "/dev/zero", "/dev/urandom",
    "/system", "/apex", "/vendor/lib64", /* Android */
    "/nix/store", "/gnu/store",
};

static inline void landlock_allow_system(int ruleset, int version)
{
    for (size_t i = 0; i < sizeof system_files / sizeof *system_files; i++)
        landlock_allow(ruleset, version, system_files[i], TO_READ);
}

#endif

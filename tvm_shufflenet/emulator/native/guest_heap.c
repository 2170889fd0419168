/* Same addresses in every session of the emulated device; preloaded into the device server there, and only there.
 *
 * Cache conflicts depend on addresses, and the C library's heap gives a forked session addresses that depend on what
 * the server did before. With this heap a session starts on an empty one of its own at a fixed address. What it
 * allocates must not depend on timing either, and TVM's RPC server sizes its buffers by how many bytes each receive
 * returns: so a receive waits for everything that was asked for.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SERVER_HEAP (1ull << 44) /* far from where QEMU places the guest's program, libraries and stack */
#define SESSION_HEAP (SERVER_HEAP + (1ull << 40))
#define GROWTH (4ull << 20)

/* In front of what the caller gets. ``block`` is where the block starts: further down if the caller asked to align. */
struct header {
    char *block;
    size_t bytes;
};

static uint64_t next = SERVER_HEAP, end = SERVER_HEAP;
static char *freed[64 * 4]; /* blocks to use again, by size class; each starts with the address of the next one */
static bool lock;

static struct header *header_of(void *pointer)
{
    return (struct header *)pointer - 1;
}

/* Four sizes per power of two, so that freed blocks fit again. */
static size_t rounded(size_t bytes)
{
    size_t step = bytes < 64 ? 16 : 1ull << (61 - __builtin_clzll(bytes));
    return (bytes + step - 1) & ~(step - 1);
}

static char **freed_like(size_t bytes)
{
    unsigned top = 63 - __builtin_clzll(bytes);
    return &freed[top * 4 + (bytes >> (top - 2) & 3)];
}

static char *take(size_t bytes, bool *is_zero)
{
    char **list = freed_like(bytes), *block = *list;
    *is_zero = !block;
    if (block) {
        memcpy(list, block, sizeof *list);
        return block;
    }
    if (next + bytes > end) {
        size_t more = (next + bytes - end + GROWTH - 1) & ~(GROWTH - 1);
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
        if (mmap((void *)end, more, PROT_READ | PROT_WRITE, flags, -1, 0) != (void *)end)
            return NULL;
        end += more;
    }
    block = (char *)next;
    next += bytes;
    return block;
}

static void *allocate(size_t alignment, size_t size, bool zeroed)
{
    if (size > 1ull << 40 || alignment > 1ull << 30) {
        errno = ENOMEM;
        return NULL;
    }
    size_t slack = alignment > sizeof(struct header) ? alignment : 0;
    size_t bytes = rounded(size + slack + sizeof(struct header));
    bool is_zero;
    while (__atomic_test_and_set(&lock, __ATOMIC_ACQUIRE))
        ;
    char *block = take(bytes, &is_zero);
    __atomic_clear(&lock, __ATOMIC_RELEASE);
    if (!block) {
        errno = ENOMEM;
        return NULL;
    }
    char *pointer = block + sizeof(struct header);
    if (slack)
        pointer = (char *)(((uint64_t)pointer + alignment - 1) & ~(alignment - 1));
    *header_of(pointer) = (struct header){block, bytes};
    return zeroed && !is_zero ? memset(pointer, 0, size) : pointer;
}

void *malloc(size_t size)
{
    return allocate(0, size, false);
}

void *calloc(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        bytes = SIZE_MAX; /* which is refused */
    return allocate(0, bytes, true);
}

void free(void *pointer)
{
    /* A session leaves the server's blocks alone: which of them are free differs from session to session. */
    if (!pointer || ((uint64_t)pointer < SESSION_HEAP && next >= SESSION_HEAP))
        return;
    struct header *header = header_of(pointer);
    char *block = header->block, **list = freed_like(header->bytes);
    while (__atomic_test_and_set(&lock, __ATOMIC_ACQUIRE))
        ;
    memcpy(block, list, sizeof *list);
    *list = block;
    __atomic_clear(&lock, __ATOMIC_RELEASE);
}

size_t malloc_usable_size(void *pointer)
{
    return pointer ? header_of(pointer)->block + header_of(pointer)->bytes - (char *)pointer : 0;
}

void *realloc(void *pointer, size_t size)
{
    size_t had = malloc_usable_size(pointer);
    if (pointer && size <= had)
        return pointer;
    void *fresh = malloc(size);
    if (fresh && pointer) {
        memcpy(fresh, pointer, had);
        free(pointer);
    }
    return fresh;
}

void *memalign(size_t alignment, size_t size)
{
    return allocate(alignment, size, false);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return allocate(alignment, size, false);
}

int posix_memalign(void **result, size_t alignment, size_t size)
{
    void *pointer = allocate(alignment, size, false);
    if (!pointer)
        return ENOMEM;
    *result = pointer;
    return 0;
}

static void start_session(void)
{
    next = end = SESSION_HEAP;
    memset(freed, 0, sizeof freed);
    lock = false;
}

static __attribute__((constructor)) void install(void)
{
    pthread_atfork(NULL, NULL, start_session);
}

ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
    int domain = 0;
    socklen_t length = sizeof domain;
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length);
    if (domain == AF_UNIX) /* the cost service's answer is read in one piece of unknown size */
        return recvfrom(fd, buffer, size, flags, NULL, NULL);
    size_t received = 0;
    ssize_t count;
    do { /* a process that is stopped and goes on gets what had come by then, MSG_WAITALL or not */
        count = recvfrom(fd, (char *)buffer + received, size - received, flags | MSG_WAITALL, NULL, NULL);
        received += count > 0 ? count : 0;
    } while (received < size && (count > 0 || (count < 0 && errno == EINTR)));
    return received ? (ssize_t)received : count;
}

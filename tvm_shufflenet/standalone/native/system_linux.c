/* system.h by the Linux kernel alone. */
#include "system.h"

#if defined(__x86_64__)

enum { SYS_mmap = 9, SYS_mprotect = 10, SYS_munmap = 11, SYS_rt_sigprocmask = 14, SYS_clone = 56, SYS_exit = 60 };
enum { SYS_futex = 202, SYS_sched_getaffinity = 204, SYS_openat = 257, SYS_read = 0, SYS_close = 3 };

static long call(long number, long a, long b, long c, long d, long e, long f) {
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

/* The new thread finds its function and argument on its stack, and ends by itself. */
static long clone_thread(long flags, void **stack, _Atomic uint32_t *alive) {
  register long r10 __asm__("r10") = (long)alive;
  register long r8 __asm__("r8") = 0;
  long result;
  __asm__ volatile(
      "syscall\n\t"
      "test %%eax, %%eax\n\t"
      "jnz 1f\n\t"
      "xor %%ebp, %%ebp\n\t"
      "pop %%rax\n\t"
      "pop %%rdi\n\t"
      "call *%%rax\n\t"
      "mov %[exit], %%eax\n\t"
      "xor %%edi, %%edi\n\t"
      "syscall\n\t"
      "1:"
      : "=a"(result)
      : "a"((long)SYS_clone), "D"(flags), "S"(stack), "d"((long)alive), "r"(r10), "r"(r8), [exit] "i"(SYS_exit)
      : "rcx", "r11", "memory");
  return result;
}

#elif defined(__aarch64__)

enum { SYS_exit = 93, SYS_futex = 98, SYS_sched_getaffinity = 123, SYS_rt_sigprocmask = 135, SYS_munmap = 215 };
enum { SYS_clone = 220, SYS_mmap = 222, SYS_mprotect = 226, SYS_openat = 56, SYS_read = 63, SYS_close = 57 };

static long call(long number, long a, long b, long c, long d, long e, long f) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
}

static long clone_thread(long flags, void **stack, _Atomic uint32_t *alive) {
  register long x8 __asm__("x8") = SYS_clone;
  register long x0 __asm__("x0") = flags;
  register long x1 __asm__("x1") = (long)stack;
  register long x2 __asm__("x2") = (long)alive;
  register long x3 __asm__("x3") = 0;
  register long x4 __asm__("x4") = (long)alive;
  __asm__ volatile(
      "svc 0\n\t"
      "cbnz x0, 1f\n\t"
      "mov x29, xzr\n\t"
      "mov x30, xzr\n\t"
      "ldp x1, x0, [sp], #16\n\t"
      "blr x1\n\t"
      "mov x8, %[exit]\n\t"
      "mov x0, xzr\n\t"
      "svc 0\n\t"
      "1:"
      : "+r"(x0)
      : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), [exit] "i"(SYS_exit)
      : "memory");
  return x0;
}

#else
#error "the driver knows x86-64 and aarch64"
#endif

enum { AT_FDCWD = -100, O_RDONLY_CLOEXEC = 02000000 };
enum { PROT_NONE = 0, PROT_READ_WRITE = 3, MAP_PRIVATE_ANONYMOUS = 0x22 };
enum { FUTEX_WAIT = 0, FUTEX_WAIT_PRIVATE = 128, FUTEX_WAKE_PRIVATE = 129 };
enum { SIG_SETMASK = 2, SIGNAL_SET_BYTES = 8 };
/* VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, PARENT_SETTID, CHILD_CLEARTID: what every pthread_create asks for, but TLS. */
#define THREAD_FLAGS (0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x100000 | 0x200000)
#define STACK_BYTES ((size_t)256 << 10)
#define GUARD_BYTES ((size_t)64 << 10) /* a page, however large pages are */

void *system_allocate(size_t bytes) {
  long result = call(SYS_mmap, 0, (long)bytes, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
  return result < 0 && result > -4096 ? NULL : (void *)result;
}

void system_free(void *memory, size_t bytes) { call(SYS_munmap, (long)memory, (long)bytes, 0, 0, 0, 0); }

int system_start(struct system_thread *thread, void (*function)(void *), void *argument) {
  char *stack = system_allocate(GUARD_BYTES + STACK_BYTES);
  if (stack == NULL) return -1;
  call(SYS_mprotect, (long)stack, (long)GUARD_BYTES, PROT_NONE, 0, 0, 0);
  void **top = (void **)(stack + GUARD_BYTES + STACK_BYTES) - 2;
  top[0] = (void *)function;
  top[1] = argument;
  thread->stack = stack;
  thread->alive = 1;
  uint64_t all = ~(uint64_t)0, before;
  call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&before, SIGNAL_SET_BYTES, 0, 0);
  long result = clone_thread(THREAD_FLAGS, top, &thread->alive);
  call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, SIGNAL_SET_BYTES, 0, 0);
  if (result > 0) return 0;
  system_free(stack, GUARD_BYTES + STACK_BYTES);
  return -1;
}

void system_join(struct system_thread *thread) {
  uint32_t alive;
  /* The kernel wakes without FUTEX_PRIVATE. */
  while ((alive = thread->alive) != 0) call(SYS_futex, (long)&thread->alive, FUTEX_WAIT, (long)alive, 0, 0, 0);
  system_free(thread->stack, GUARD_BYTES + STACK_BYTES);
}

void system_wait(_Atomic uint32_t *word, uint32_t seen) {
  call(SYS_futex, (long)word, FUTEX_WAIT_PRIVATE, (long)seen, 0, 0, 0);
}

void system_wake(_Atomic uint32_t *word) { call(SYS_futex, (long)word, FUTEX_WAKE_PRIVATE, 0x7fffffff, 0, 0, 0); }

/* From /proc: what getauxval looks into is the C library's, which a library without one has no way to. */
int system_auxiliary(uint64_t type, uint64_t *value) {
  static const char path[] = "/proc/self/auxv";
  uint64_t entries[128]; /* pairs of type and value; kernels make some 20 */
  long file = call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY_CLOEXEC, 0, 0, 0);
  if (file < 0) return -1;
  long bytes = call(SYS_read, file, (long)entries, sizeof entries, 0, 0, 0);
  call(SYS_close, file, 0, 0, 0, 0, 0);
  for (long index = 0; index + 1 < bytes / 8; index += 2)
    if (entries[index] == type) {
      *value = entries[index + 1];
      return 0;
    }
  return -1;
}

int system_processors(void) {
  uint64_t mask[128] = {0}; /* 8192 processors */
  long bytes = call(SYS_sched_getaffinity, 0, sizeof mask, (long)mask, 0, 0, 0);
  int count = 0;
  for (long word = 0; word < bytes / 8; word++)
    for (uint64_t bits = mask[word]; bits != 0; bits &= bits - 1) count++;
  return count > 0 ? count : 1;
}

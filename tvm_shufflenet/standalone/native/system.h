/* What the driver asks of the system: memory, threads, and waiting for a word of memory to change.
 *
 * As it ships, these are calls of the Linux kernel, so that one library loads under every C library and without any. A
 * thread that is made here never enters a C library: it has no thread-local storage of its own, and blocks all signals,
 * whose handlers might want some. With HOSTED they are the C library's, which is what sanitizers can follow. */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <stddef.h>
#include <stdint.h>

/* Zeroed pages; NULL where there is no memory. */
void *system_allocate(size_t bytes);
void system_free(void *memory, size_t bytes);

struct system_thread {
  _Atomic uint32_t alive; /* the kernel clears it, and wakes who waits for it, once the thread is gone */
  void *stack;
  uintptr_t handle;
};

/* Run `function(argument)` in a thread of its own. Returns 0, or -1 where the system starts none. */
int system_start(struct system_thread *thread, void (*function)(void *), void *argument);
void system_join(struct system_thread *thread);

/* Sleep until woken, unless `*word` is not `seen` any more. May return early. */
void system_wait(_Atomic uint32_t *word, uint32_t seen);
void system_wake(_Atomic uint32_t *word);

/* Processors that this process may use. */
int system_processors(void);

/* An entry of the auxiliary vector, by which the kernel describes the CPU. Returns 0, or -1 where it is not to be had. */
int system_auxiliary(uint64_t type, uint64_t *value);

/* Tell the processor that this is a loop that waits. */
static inline void system_pause(void) {
#if defined(__x86_64__)
  __asm__ volatile("pause");
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory"); /* yield does nothing on most cores; isb waits some ten cycles */
#endif
}

#endif

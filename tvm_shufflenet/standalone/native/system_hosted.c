/* system.h by the C library: for sanitizers, which follow its calls. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "system.h"

void *system_allocate(size_t bytes) {
  void *memory = NULL;
  if (posix_memalign(&memory, 64, bytes) != 0) return NULL;
  return memset(memory, 0, bytes);
}

void system_free(void *memory, size_t bytes) {
  (void)bytes;
  free(memory);
}

struct start {
  void (*function)(void *);
  void *argument;
};

static void *run(void *argument) {
  struct start start = *(struct start *)argument;
  free(argument);
  start.function(start.argument);
  return NULL;
}

int system_start(struct system_thread *thread, void (*function)(void *), void *argument) {
  pthread_t handle;
  struct start *start = malloc(sizeof *start);
  if (start == NULL) return -1;
  *start = (struct start){function, argument};
  if (pthread_create(&handle, NULL, run, start) != 0) {
    free(start);
    return -1;
  }
  thread->handle = (uintptr_t)handle;
  return 0;
}

void system_join(struct system_thread *thread) { pthread_join((pthread_t)thread->handle, NULL); }

void system_wait(_Atomic uint32_t *word, uint32_t seen) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

void system_wake(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 0x7fffffff, NULL, NULL, 0); }

int system_auxiliary(uint64_t type, uint64_t *value) {
  *value = getauxval((unsigned long)type);
  return 0;
}

int system_processors(void) {
  cpu_set_t mask;
  return sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : 1;
}

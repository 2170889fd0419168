/* Worker threads that share the iterations of one loop at a time. */
#ifndef POOL_H
#define POOL_H

#include "system.h"

#define POOL_THREADS 64 /* at most, the caller's included */

/* Iterations from `begin` to `end` of a loop, done by thread `thread`. */
typedef void (*pool_body)(const void *argument, int thread, int begin, int end);

struct pool;

struct pool_worker {
  struct pool *pool;
  int index;
  struct system_thread thread;
};

struct pool {
  int threads; /* the caller's included */
  _Atomic uint32_t turn;    /* one more for every loop */
  _Atomic uint32_t asleep;  /* workers that wait for a turn without spinning */
  _Atomic uint32_t pending; /* workers that have not finished this turn */
  _Atomic uint32_t waiting; /* whether the caller waits for them without spinning */
  _Atomic uint32_t stop;
  pool_body body;
  const void *argument;
  int extent;
  struct pool_worker workers[POOL_THREADS];
};

/* Start all but one of `threads`. Returns 0, or -1 with none of them left where the system starts no more. `pool` is
 * zeroed memory. */
int pool_start(struct pool *pool, int threads);
void pool_stop(struct pool *pool);

/* Deal out `extent` iterations; returns once all are done. */
void pool_run(struct pool *pool, pool_body body, const void *argument, int extent);

#endif

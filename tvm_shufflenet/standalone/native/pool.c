#include "pool.h"

#include <stdatomic.h>

/* The operators of a network follow each other within microseconds, and a thread that sleeps takes tens of them to
 * wake; so threads spin for about as long as an operator takes before they sleep. */
#define SPINS 2000

static void share(struct pool *pool, int thread) {
  int chunk = (pool->extent + pool->threads - 1) / pool->threads;
  int begin = thread * chunk < pool->extent ? thread * chunk : pool->extent;
  int end = begin + chunk < pool->extent ? begin + chunk : pool->extent;
  if (begin < end) pool->body(pool->argument, thread, begin, end);
}

static void await_turn(struct pool *pool, uint32_t seen) {
  for (int spin = 0; spin < SPINS; spin++) {
    if (atomic_load_explicit(&pool->turn, memory_order_acquire) != seen) return;
    system_pause();
  }
  /* Counted before it looks again, as pool_run takes its turn before it counts: one of them sees the other. */
  atomic_fetch_add(&pool->asleep, 1);
  while (atomic_load(&pool->turn) == seen) system_wait(&pool->turn, seen);
  atomic_fetch_sub(&pool->asleep, 1);
}

static void work(void *argument) {
  struct pool_worker *worker = argument;
  struct pool *pool = worker->pool;
  for (uint32_t seen = 0;; seen++) {
    await_turn(pool, seen);
    if (atomic_load(&pool->stop)) return;
    share(pool, worker->index);
    if (atomic_fetch_sub(&pool->pending, 1) == 1 && atomic_load(&pool->waiting)) system_wake(&pool->pending);
  }
}

static void next_turn(struct pool *pool) {
  atomic_fetch_add(&pool->turn, 1);
  if (atomic_load(&pool->asleep) != 0) system_wake(&pool->turn);
}

static void await_workers(struct pool *pool) {
  for (int spin = 0; spin < SPINS; spin++) {
    if (atomic_load_explicit(&pool->pending, memory_order_acquire) == 0) return;
    system_pause();
  }
  atomic_store(&pool->waiting, 1);
  for (uint32_t left; (left = atomic_load(&pool->pending)) != 0;) system_wait(&pool->pending, left);
  atomic_store(&pool->waiting, 0);
}

int pool_start(struct pool *pool, int threads) {
  pool->threads = 1;
  for (int index = 1; index < threads; index++) {
    struct pool_worker *worker = &pool->workers[index];
    worker->pool = pool;
    worker->index = index;
    if (system_start(&worker->thread, work, worker) != 0) {
      pool_stop(pool);
      return -1;
    }
    pool->threads = index + 1; /* no worker reads it before its first turn */
  }
  return 0;
}

void pool_stop(struct pool *pool) {
  atomic_store(&pool->stop, 1);
  next_turn(pool);
  for (int index = 1; index < pool->threads; index++) system_join(&pool->workers[index].thread);
}

void pool_run(struct pool *pool, pool_body body, const void *argument, int extent) {
  if (pool->threads == 1 || extent == 1) {
    body(argument, 0, 0, extent);
    return;
  }
  pool->body = body;
  pool->argument = argument;
  pool->extent = extent;
  atomic_store_explicit(&pool->pending, (uint32_t)pool->threads - 1, memory_order_relaxed);
  next_turn(pool);
  share(pool, 0);
  await_workers(pool);
}

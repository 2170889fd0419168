/* Runs the program of a network: the same code for every model, which describes itself in tables (model.c). */
#ifndef DRIVER_H
#define DRIVER_H

#include "interface.h"

/* Where the pointers of one inference are. */
struct frame {
  unsigned char *arena;
  unsigned char *workspace; /* of the first thread; the others' lie behind it */
  const tvmsn_input *inputs;
  const tvmsn_output *outputs;
};

/* One call of a kernel, or a phase of one. `extent` iterations may be dealt out; 0: it runs as a whole. */
struct step {
  const char *name;
  void (*run)(const struct frame *frame, int thread, int begin, int end);
  int extent;
};

struct network {
  const char *name;
  const tvmsn_tensor *inputs;
  size_t input_count;
  const tvmsn_tensor *outputs;
  size_t output_count;
  const struct step *steps;
  size_t step_count;
  size_t arena_bytes;
  size_t workspace_bytes; /* for each thread */
  const char *const *features; /* of the CPU, that its kernels may use; NULL behind the last */
};

struct instance;

/* As the functions of the generated header, which only add the model's name and its network. */
int driver_create(const struct network *network, int threads, struct instance **instance);
void driver_destroy(struct instance *instance);
int driver_run(struct instance *instance, const tvmsn_input *inputs, size_t input_count, const tvmsn_output *outputs,
               size_t output_count);
int driver_threads(const struct instance *instance);
const char *driver_last_error(const struct instance *instance);
const char *driver_status_text(int status);
/* What this CPU lacks of what the network was compiled for, in words. */
const char *driver_cpu_text(const struct network *network);

/* As driver_run, and `clock` is read before the first step and after each one: step_count + 1 times. */
int driver_run_timed(struct instance *instance, const tvmsn_input *inputs, size_t input_count,
                     const tvmsn_output *outputs, size_t output_count, uint64_t (*clock)(void), uint64_t *times);

#endif

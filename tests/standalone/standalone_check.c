/* What sanitizers and the allocation counter watch: every way to call a driver, right and wrong, by one and by many.
 *
 * Prints "ok" and the checksum-free truth: every instance with any number of threads answered the same bits. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"

enum { CALLERS = 3, RUNS = 20 };

extern const struct network model_network;

#ifdef COUNTED
extern unsigned long allocations; /* of the wrapped malloc, calloc, posix_memalign */
#else
static unsigned long allocations;
#endif

#define REQUIRE(condition)                                              \
  do {                                                                  \
    if (!(condition)) {                                                 \
      fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #condition); \
      exit(1);                                                          \
    }                                                                   \
  } while (0)

struct buffers {
  tvmsn_input *inputs;
  tvmsn_output *outputs;
};

static struct buffers make_buffers(void) {
  const struct network *network = &model_network;
  struct buffers made = {calloc(network->input_count, sizeof(tvmsn_input)),
                         calloc(network->output_count, sizeof(tvmsn_output))};
  for (size_t i = 0; i < network->input_count; i++) {
    size_t count = network->inputs[i].bytes / sizeof(float);
    float *data = malloc(count * sizeof *data);
    for (size_t k = 0; k < count; k++) data[k] = (float)((k * 2654435761u) % 1000) / 500 - 1;
    made.inputs[i] = (tvmsn_input){data, network->inputs[i].bytes};
  }
  for (size_t i = 0; i < network->output_count; i++)
    made.outputs[i] = (tvmsn_output){malloc(network->outputs[i].bytes), network->outputs[i].bytes};
  return made;
}

static void free_buffers(struct buffers buffers) {
  for (size_t i = 0; i < model_network.input_count; i++) free((void *)buffers.inputs[i].data);
  for (size_t i = 0; i < model_network.output_count; i++) free(buffers.outputs[i].data);
  free(buffers.inputs);
  free(buffers.outputs);
}

static int run(struct instance *instance, struct buffers buffers) {
  return driver_run(instance, buffers.inputs, model_network.input_count, buffers.outputs, model_network.output_count);
}

static struct buffers expected;

static void same_as_expected(struct buffers buffers) {
  for (size_t i = 0; i < model_network.output_count; i++)
    REQUIRE(memcmp(buffers.outputs[i].data, expected.outputs[i].data, buffers.outputs[i].bytes) == 0);
}

static void inferences(int threads) {
  struct instance *instance;
  REQUIRE(driver_create(&model_network, threads, &instance) == TVMSN_OK);
  REQUIRE(driver_threads(instance) == threads);
  struct buffers buffers = make_buffers();
  unsigned long before = allocations;
  for (int k = 0; k < RUNS; k++) {
    REQUIRE(run(instance, buffers) == TVMSN_OK);
    REQUIRE(driver_last_error(instance)[0] == '\0');
  }
  REQUIRE(allocations == before);
  same_as_expected(buffers);
  free_buffers(buffers);
  driver_destroy(instance);
}

static void *caller(void *threads) {
  inferences(*(int *)threads);
  return NULL;
}

static void many_callers(int threads) {
  pthread_t callers[CALLERS];
  for (int k = 0; k < CALLERS; k++) REQUIRE(pthread_create(&callers[k], NULL, caller, &threads) == 0);
  for (int k = 0; k < CALLERS; k++) pthread_join(callers[k], NULL);
}

/* One instance, called from two threads at once: each call either runs or says that it is busy. */
struct shared {
  struct instance *instance;
  int refused;
};

static void *insist(void *argument) {
  struct shared *shared = argument;
  struct buffers buffers = make_buffers();
  for (int k = 0; k < RUNS; k++) {
    int status = run(shared->instance, buffers);
    REQUIRE(status == TVMSN_OK || status == TVMSN_BUSY);
    if (status == TVMSN_OK) same_as_expected(buffers);
  }
  free_buffers(buffers);
  return NULL;
}

static void one_instance_for_two(void) {
  struct shared shared = {NULL, 0};
  REQUIRE(driver_create(&model_network, 2, &shared.instance) == TVMSN_OK);
  pthread_t other;
  REQUIRE(pthread_create(&other, NULL, insist, &shared) == 0);
  insist(&shared);
  pthread_join(other, NULL);
  driver_destroy(shared.instance);
}

static void refuses(struct instance *instance, struct buffers b, size_t inputs, size_t outputs, int status,
                    const char *words) {
  REQUIRE(driver_run(instance, b.inputs, inputs, b.outputs, outputs) == status);
  if (strstr(driver_last_error(instance), words) == NULL) {
    fprintf(stderr, "'%s' does not say '%s'\n", driver_last_error(instance), words);
    exit(1);
  }
}

static void bad_calls(void) {
  size_t ins = model_network.input_count, outs = model_network.output_count;
  struct buffers good = make_buffers(), bad;
  struct instance *instance = (struct instance *)&good;
  REQUIRE(driver_create(&model_network, 1, NULL) == TVMSN_NULL);
  REQUIRE(driver_create(&model_network, -1, &instance) == TVMSN_COUNT && instance == NULL);
  REQUIRE(driver_create(&model_network, 65, &instance) == TVMSN_COUNT);
  REQUIRE(run(NULL, good) == TVMSN_NULL && driver_threads(NULL) == 0);
  REQUIRE(strstr(driver_last_error(NULL), "null pointer") != NULL);
  driver_destroy(NULL);
  for (int status = -1; status < 10; status++) REQUIRE(strlen(driver_status_text(status)) > 3);

  REQUIRE(driver_create(&model_network, 0, &instance) == TVMSN_OK && driver_threads(instance) >= 1);
  bad = (struct buffers){NULL, good.outputs};
  refuses(instance, bad, ins, outs, TVMSN_NULL, "the list of inputs is a null pointer");
  bad = (struct buffers){good.inputs, NULL};
  refuses(instance, bad, ins, outs, TVMSN_NULL, "the list of outputs is a null pointer");
  refuses(instance, good, ins + 1, outs, TVMSN_COUNT, "were given");
  refuses(instance, good, ins, 0, TVMSN_COUNT, "0 were given");

  tvmsn_input input = good.inputs[0];
  tvmsn_output output = good.outputs[0];
  good.inputs[0].data = NULL;
  refuses(instance, good, ins, outs, TVMSN_NULL, "is a null pointer");
  good.inputs[0] = (tvmsn_input){input.data, input.bytes - 1};
  refuses(instance, good, ins, outs, TVMSN_SIZE, "bytes, the buffer has");
  good.inputs[0] = (tvmsn_input){input.data, SIZE_MAX};
  refuses(instance, good, ins, outs, TVMSN_SIZE, "18446744073709551615");
  good.inputs[0] = input;
  good.outputs[0].data = NULL;
  refuses(instance, good, ins, outs, TVMSN_NULL, "output 0");
  good.outputs[0] = (tvmsn_output){output.data, output.bytes + 4};
  refuses(instance, good, ins, outs, TVMSN_SIZE, "output 0");
  good.outputs[0] = (tvmsn_output){(void *)input.data, output.bytes};
  if (input.bytes >= output.bytes) refuses(instance, good, ins, outs, TVMSN_OVERLAP, "shares memory");
  good.outputs[0] = output;
  REQUIRE(run(instance, good) == TVMSN_OK && driver_last_error(instance)[0] == '\0');
  same_as_expected(good);
  driver_destroy(instance);
  free_buffers(good);
}

int main(void) {
  struct instance *instance;
  expected = make_buffers();
  REQUIRE(driver_create(&model_network, 1, &instance) == TVMSN_OK);
  REQUIRE(run(instance, expected) == TVMSN_OK);
  driver_destroy(instance);
  for (int threads = 1; threads <= 4; threads++) inferences(threads);
#ifndef COUNTED
  many_callers(1);
  many_callers(2);
  one_instance_for_two();
#else
  (void)many_callers, (void)one_instance_for_two;
#endif
  bad_calls();
  free_buffers(expected);
  puts("ok");
  return 0;
}

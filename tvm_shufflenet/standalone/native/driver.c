#include "driver.h"

#include <stdatomic.h>

#include "cpu.h"
#include "pool.h"

#define ALIGNMENT ((size_t)64)
#define ERROR_BYTES 256

struct instance {
  const struct network *network;
  size_t bytes; /* of this block: the instance, the arena, the workspaces */
  unsigned char *arena;
  unsigned char *workspace;
  _Atomic int busy;
  char error[ERROR_BYTES];
  struct pool pool;
};

/* The words of an error */

struct text {
  char *next, *end;
};

static void say(struct text *text, const char *words) {
  while (*words != '\0' && text->next < text->end) *text->next++ = *words++;
  *text->next = '\0';
}

static void say_number(struct text *text, uint64_t number) {
  char digits[24], *first = digits + sizeof digits - 1;
  *first = '\0';
  do *--first = (char)('0' + number % 10);
  while ((number /= 10) != 0);
  say(text, first);
}

static struct text error_of(struct instance *instance) {
  return (struct text){instance->error, instance->error + ERROR_BYTES - 1};
}

static void say_buffer(struct text *text, const char *kind, size_t index, const tvmsn_tensor *tensor) {
  say(text, kind);
  say(text, " ");
  say_number(text, index);
  say(text, " (");
  say(text, tensor->name);
  say(text, ") ");
}

/* What may be wrong with a caller's buffers */

static int check_count(struct instance *instance, const char *kind, size_t wanted, size_t given) {
  if (wanted == given) return TVMSN_OK;
  struct text text = error_of(instance);
  say(&text, "the network has ");
  say_number(&text, wanted);
  say(&text, " ");
  say(&text, kind);
  say(&text, wanted == 1 ? ", " : "s, ");
  say_number(&text, given);
  say(&text, given == 1 ? " was given" : " were given");
  return TVMSN_COUNT;
}

static int check_list(struct instance *instance, const char *kind, const void *list) {
  if (list != NULL) return TVMSN_OK;
  struct text text = error_of(instance);
  say(&text, "the list of ");
  say(&text, kind);
  say(&text, "s is a null pointer");
  return TVMSN_NULL;
}

static int check_buffer(struct instance *instance, const char *kind, size_t index, const tvmsn_tensor *tensor,
                        const void *data, size_t bytes) {
  struct text text = error_of(instance);
  if (data == NULL) {
    say_buffer(&text, kind, index, tensor);
    say(&text, "is a null pointer");
    return TVMSN_NULL;
  }
  if (bytes != tensor->bytes) {
    say_buffer(&text, kind, index, tensor);
    say(&text, "has ");
    say_number(&text, tensor->bytes);
    say(&text, " bytes, the buffer has ");
    say_number(&text, bytes);
    return TVMSN_SIZE;
  }
  return TVMSN_OK;
}

static int overlap(const void *one, size_t one_bytes, const void *other, size_t other_bytes) {
  uintptr_t a = (uintptr_t)one, b = (uintptr_t)other;
  return a < b + other_bytes && b < a + one_bytes;
}

/* An output may be written before the last input was read, and before another output. */
static int check_overlap(struct instance *instance, const tvmsn_input *inputs, const tvmsn_output *outputs) {
  const struct network *network = instance->network;
  for (size_t index = 0; index < network->output_count; index++) {
    const tvmsn_output *output = &outputs[index];
    int shared = 0;
    for (size_t other = 0; other < network->input_count; other++)
      shared |= overlap(output->data, output->bytes, inputs[other].data, inputs[other].bytes);
    for (size_t other = 0; other < index; other++)
      shared |= overlap(output->data, output->bytes, outputs[other].data, outputs[other].bytes);
    if (!shared) continue;
    struct text text = error_of(instance);
    say_buffer(&text, "output", index, &network->outputs[index]);
    say(&text, "shares memory with another buffer");
    return TVMSN_OVERLAP;
  }
  return TVMSN_OK;
}

static int check(struct instance *instance, const tvmsn_input *inputs, size_t input_count, const tvmsn_output *outputs,
                 size_t output_count) {
  const struct network *network = instance->network;
  int status = check_count(instance, "input", network->input_count, input_count);
  if (status == TVMSN_OK) status = check_count(instance, "output", network->output_count, output_count);
  if (status == TVMSN_OK) status = check_list(instance, "input", inputs);
  if (status == TVMSN_OK) status = check_list(instance, "output", outputs);
  for (size_t i = 0; status == TVMSN_OK && i < input_count; i++)
    status = check_buffer(instance, "input", i, &network->inputs[i], inputs[i].data, inputs[i].bytes);
  for (size_t i = 0; status == TVMSN_OK && i < output_count; i++)
    status = check_buffer(instance, "output", i, &network->outputs[i], outputs[i].data, outputs[i].bytes);
  return status == TVMSN_OK ? check_overlap(instance, inputs, outputs) : status;
}

/* An inference */

struct share {
  const struct step *step;
  const struct frame *frame;
};

static void run_share(const void *argument, int thread, int begin, int end) {
  const struct share *share = argument;
  share->step->run(share->frame, thread, begin, end);
}

static void run_step(struct pool *pool, const struct step *step, const struct frame *frame) {
  if (step->extent == 0) {
    step->run(frame, 0, 0, 0);
    return;
  }
  struct share share = {step, frame};
  pool_run(pool, run_share, &share, step->extent);
}

int driver_run_timed(struct instance *instance, const tvmsn_input *inputs, size_t input_count,
                     const tvmsn_output *outputs, size_t output_count, uint64_t (*clock)(void), uint64_t *times) {
  if (instance == NULL) return TVMSN_NULL;
  if (atomic_exchange(&instance->busy, 1)) return TVMSN_BUSY; /* the text is the other thread's to write */
  instance->error[0] = '\0';
  int status = check(instance, inputs, input_count, outputs, output_count);
  if (status == TVMSN_OK) {
    const struct network *network = instance->network;
    struct frame frame = {instance->arena, instance->workspace, inputs, outputs};
    if (clock != NULL) times[0] = clock();
    for (size_t index = 0; index < network->step_count; index++) {
      run_step(&instance->pool, &network->steps[index], &frame);
      if (clock != NULL) times[index + 1] = clock();
    }
  }
  atomic_store(&instance->busy, 0);
  return status;
}

int driver_run(struct instance *instance, const tvmsn_input *inputs, size_t input_count, const tvmsn_output *outputs,
               size_t output_count) {
  return driver_run_timed(instance, inputs, input_count, outputs, output_count, NULL, NULL);
}

/* An instance */

static size_t aligned(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

int driver_create(const struct network *network, int threads, struct instance **instance) {
  if (instance == NULL) return TVMSN_NULL;
  *instance = NULL;
  if (threads < 0 || threads > POOL_THREADS) return TVMSN_COUNT;
  if (cpu_lacks(network->features) != NULL) return TVMSN_CPU;
  if (threads == 0) threads = system_processors();
  if (threads > POOL_THREADS) threads = POOL_THREADS;
  size_t header = aligned(sizeof(struct instance)), arena = aligned(network->arena_bytes);
  size_t bytes = header + arena + (size_t)threads * network->workspace_bytes;
  unsigned char *block = system_allocate(bytes);
  if (block == NULL) return TVMSN_MEMORY;
  struct instance *made = (struct instance *)block;
  made->network = network;
  made->bytes = bytes;
  made->arena = block + header;
  made->workspace = made->arena + arena;
  if (pool_start(&made->pool, threads) != 0) {
    system_free(block, bytes);
    return TVMSN_THREAD;
  }
  *instance = made;
  return TVMSN_OK;
}

void driver_destroy(struct instance *instance) {
  if (instance == NULL) return;
  pool_stop(&instance->pool);
  system_free(instance, instance->bytes);
}

int driver_threads(const struct instance *instance) { return instance == NULL ? 0 : instance->pool.threads; }

const char *driver_last_error(const struct instance *instance) {
  return instance == NULL ? "the instance is a null pointer: its creation failed, and its status says why"
                          : instance->error;
}

const char *driver_cpu_text(const struct network *network) {
  const char *sentence = cpu_lacks(network->features);
  return sentence != NULL ? sentence : driver_status_text(TVMSN_CPU);
}

const char *driver_status_text(int status) {
  switch (status) {
    case TVMSN_OK: return "done";
    case TVMSN_NULL: return "a null pointer was given";
    case TVMSN_COUNT: return "the number of inputs, outputs or threads is not one that is possible";
    case TVMSN_SIZE: return "a buffer has another size than the network's";
    case TVMSN_OVERLAP: return "an output shares memory with another buffer";
    case TVMSN_BUSY: return "another thread is running this instance; create one for each";
    case TVMSN_MEMORY: return "there is no memory for an instance";
    case TVMSN_THREAD: return "the system started no more threads";
    case TVMSN_CPU: return "the CPU lacks instructions that the library was compiled for";
    default: return "no status of this library";
  }
}

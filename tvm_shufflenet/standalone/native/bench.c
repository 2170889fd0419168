/* Times a model on the machine this runs on: one static program with the model, an input and its answer inside. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "device.h"
#include "driver.h"
#include "emulation.h"
#include "probes.h"
#include "samples.h"

enum { EXIT_ARGUMENTS = 2, EXIT_DEVICE = 4, EXIT_WRONG = 5 };
enum { PROBE_LIMIT_S = 10, SCHEMA = 1, MAXIMUM_COUNT = 1000000, MAXIMUM_THREADS = 64 };

extern const struct network model_network;
extern const unsigned char reference_inputs[], reference_outputs[];
extern const struct probe reference_probes[]; /* the reference inputs first, as their answers in reference_outputs */

struct options {
  bool json;
  int warmup, repeat, threads;
  const char *affinity; /* as given, NULL where it was not */
  const char *input, *output;
};

static void usage(FILE *to) {
  fprintf(to,
          "times %s on this machine\n\n"
          "  --warmup N       untimed inferences first (5)\n"
          "  --repeat N       samples (30)\n"
          "  --threads N      threads, 0 for one on each processor (1)\n"
          "  --affinity LIST  processors to run on, such as 0,2-3 (all)\n"
          "  --json           JSON on standard output instead of a table\n"
          "  --input FILE     raw bytes of the inputs in order, instead of those inside; the answer is not checked\n"
          "  --output FILE    write the outputs' raw bytes in order\n\n"
          "ends with 0: done, 2: wrong arguments, 4: the machine refused, 5: the answer is wrong\n",
          model_network.name);
}

static _Noreturn void fail(int status, const char *what, const char *detail) {
  fprintf(stderr, "%s: %s%s%s\n", model_network.name, what, *detail ? ": " : "", detail);
  exit(status);
}

static int number(const char *text, int least, int most, const char *option) {
  char *end;
  errno = 0;
  long value = strtol(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || value < least || value > most) {
    char what[96];
    snprintf(what, sizeof what, "--%s must be a number from %d to %d", option, least, most);
    fail(EXIT_ARGUMENTS, what, text);
  }
  return (int)value;
}

static struct options parse(int count, char **arguments) {
  struct options options = {.warmup = 5, .repeat = 30, .threads = 1};
  static const struct option known[] = {
      {"json", no_argument, NULL, 'j'},           {"warmup", required_argument, NULL, 'w'},
      {"repeat", required_argument, NULL, 'r'},   {"threads", required_argument, NULL, 't'},
      {"affinity", required_argument, NULL, 'a'}, {"input", required_argument, NULL, 'i'},
      {"output", required_argument, NULL, 'o'},   {"help", no_argument, NULL, 'h'},
      {NULL, 0, NULL, 0},
  };
  for (int option; (option = getopt_long(count, arguments, "", known, NULL)) != -1;) switch (option) {
      case 'j': options.json = true; break;
      case 'w': options.warmup = number(optarg, 0, MAXIMUM_COUNT, "warmup"); break;
      case 'r': options.repeat = number(optarg, 1, MAXIMUM_COUNT, "repeat"); break;
      case 't': options.threads = number(optarg, 0, MAXIMUM_THREADS, "threads"); break;
      case 'a': options.affinity = optarg; break;
      case 'i': options.input = optarg; break;
      case 'o': options.output = optarg; break;
      case 'h': usage(stdout); exit(0);
      default: usage(stderr); exit(EXIT_ARGUMENTS);
    }
  if (optind < count) fail(EXIT_ARGUMENTS, "unknown argument", arguments[optind]);
  return options;
}

/* Processors such as 0,2-3. */
static void pin(const char *list) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const char *next = list;;) {
    char *end;
    long first = strtol(next, &end, 10), last = first;
    bool ok = end != next && *next >= '0' && *next <= '9';
    if (ok && *end == '-') {
      next = end + 1;
      last = strtol(next, &end, 10);
      ok = end != next && *next >= '0' && *next <= '9';
    }
    if (!ok || last < first || last >= CPU_SETSIZE || (*end != ',' && *end != '\0'))
      fail(EXIT_ARGUMENTS, "--affinity is a list of processors such as 0,2-3", list);
    for (long processor = first; processor <= last; processor++) CPU_SET((size_t)processor, &set);
    if (*end == '\0') break;
    next = end + 1;
  }
  if (sched_setaffinity(0, sizeof set, &set) != 0)
    fail(EXIT_ARGUMENTS, "this machine does not let a process run on these processors", list);
}

/* Buffers */

static size_t total(const tvmsn_tensor *tensors, size_t count) {
  size_t bytes = 0;
  for (size_t index = 0; index < count; index++) bytes += tensors[index].bytes;
  return bytes;
}

static void *allocate(size_t bytes) {
  void *memory = calloc(1, bytes > 0 ? bytes : 1);
  if (memory == NULL) fail(EXIT_DEVICE, "there is no memory", "");
  return memory;
}

static unsigned char *read_input(const char *path, size_t bytes) {
  unsigned char *data = allocate(bytes + 1);
  FILE *file = fopen(path, "rb");
  if (file == NULL) fail(EXIT_ARGUMENTS, path, strerror(errno));
  size_t got = fread(data, 1, bytes + 1, file);
  fclose(file);
  if (got != bytes) {
    char what[96];
    snprintf(what, sizeof what, "the network takes %zu bytes, the file has %s", bytes, got > bytes ? "more" : "less");
    fail(EXIT_ARGUMENTS, what, path);
  }
  return data;
}

static void write_output(const char *path, const unsigned char *data, size_t bytes) {
  FILE *file = fopen(path, "wb");
  if (file == NULL) fail(EXIT_ARGUMENTS, path, strerror(errno));
  size_t written = fwrite(data, 1, bytes, file);
  if (fclose(file) != 0 || written != bytes) fail(EXIT_ARGUMENTS, path, strerror(errno));
}

/* The answer */

struct difference {
  const char *output;
  double error, tolerance;
};

struct answer {
  double checksum, expected;
  struct difference worst; /* for the reference inputs */
  int inputs;              /* for so many the answer is right */
  bool ok;
  char fault[160]; /* what is wrong, in words */
};

/* The sum of all values, each times a weight of its own between 1 and 2, so that no two of them can be exchanged. */
static double checksum(const float *values, size_t count) {
  double sum = 0;
  uint32_t state = 1;
  for (size_t index = 0; index < count; index++) {
    state = state * 1664525u + 1013904223u; /* Numerical Recipes, second edition, section 7.1 */
    sum += values[index] * (1.0 + state / 4294967296.0);
  }
  return sum;
}

/* The largest difference. Where the expected value is NaN or infinite, the other must be the same; it is infinite else,
   as for a NaN alone. Where `spoilt`, if there is one, is NaN, a NaN on either side passes. */
static double largest_error(const float *values, const float *expected, const float *spoilt, size_t count) {
  double largest = 0;
  for (size_t index = 0; index < count; index++) {
    double error = fabs((double)values[index] - (double)expected[index]);
    bool ours = isnan(values[index]), theirs = isnan(expected[index]);
    if (values[index] == expected[index] || (ours && theirs)) continue;
    if (spoilt != NULL && isnan(spoilt[index]) && (ours || theirs)) continue;
    if (isnan(error)) error = INFINITY;
    if (error > largest) largest = error;
  }
  return largest;
}

/* The difference of that output which comes closest to its tolerance, or is furthest beyond. */
static struct difference compare(const unsigned char *found, const unsigned char *expected,
                                 const unsigned char *spoilt, const double *tolerances) {
  const struct network *network = &model_network;
  struct difference worst = {NULL, 0, 0};
  double largest = -1;
  for (size_t index = 0, offset = 0; index < network->output_count; offset += network->outputs[index++].bytes) {
    const tvmsn_tensor *output = &network->outputs[index];
    const float *nan = spoilt == NULL ? NULL : (const float *)(spoilt + offset);
    double error = largest_error((const float *)(found + offset), (const float *)(expected + offset), nan,
                                 output->bytes / sizeof(float));
    double share = tolerances[index] > 0 ? error / tolerances[index] : error > 0 ? INFINITY : 0;
    if (share > largest) {
      largest = share;
      worst = (struct difference){output->name, error, tolerances[index]};
    }
  }
  return worst;
}

static struct answer judge(const unsigned char *output, size_t bytes) {
  size_t count = bytes / sizeof(float);
  struct answer answer = {.checksum = checksum((const float *)output, count),
                          .expected = checksum((const float *)reference_outputs, count),
                          .worst = compare(output, reference_outputs, NULL, reference_probes[0].tolerances),
                          .inputs = 1};
  answer.ok = answer.worst.error <= answer.worst.tolerance;
  if (!answer.ok)
    snprintf(answer.fault, sizeof answer.fault, "off by %.3g from PyTorch, %.3g is allowed", answer.worst.error,
             answer.worst.tolerance);
  return answer;
}

/* Times */

static uint64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct run {
  struct instance *instance;
  tvmsn_input *inputs;
  tvmsn_output *outputs;
};

static double once(const struct run *run, uint64_t *times) {
  const struct network *network = &model_network;
  uint64_t start = nanoseconds();
  int status = driver_run_timed(run->instance, run->inputs, network->input_count, run->outputs, network->output_count,
                                times == NULL ? NULL : nanoseconds, times);
  double us = (double)(nanoseconds() - start) / 1e3;
  if (status != TVMSN_OK) fail(EXIT_DEVICE, driver_status_text(status), driver_last_error(run->instance));
  return us;
}

/* What each input is for the probe `name`. Returns 0, or -1 for a name without a rule. */
static int make_inputs(const char *name, unsigned char *input) {
  const struct network *network = &model_network;
  int status = 0;
  for (size_t index = 0, offset = 0; index < network->input_count; offset += network->inputs[index++].bytes)
    status |= make_probe(name, (const float *)(reference_inputs + offset), (float *)(input + offset),
                         network->inputs[index].bytes / sizeof(float));
  return status;
}

/* A second run on the same inputs, which must come to the same bits and leave the inputs alone; then the other inputs,
   as many as there is time for, but at least one.
   `input` is what `run` reads, and holds the reference inputs again in the end. */
static void judge_rest(const struct run *run, unsigned char *input, size_t input_bytes, unsigned char *output,
                       size_t output_bytes, struct answer *answer) {
  unsigned char *first = allocate(output_bytes);
  memcpy(first, output, output_bytes);
  once(run, NULL);
  if (memcmp(input, reference_inputs, input_bytes) != 0)
    snprintf(answer->fault, sizeof answer->fault, "the input is overwritten");
  else if (memcmp(first, output, output_bytes) != 0)
    snprintf(answer->fault, sizeof answer->fault, "a second run on the same input answers otherwise");
  free(first);
  const struct probe *probe = reference_probes + 1;
  const unsigned char *of_nan = NULL; /* the answer to NaN, which shows what infinity reaches as well */
  const uint64_t late = nanoseconds() + PROBE_LIMIT_S * UINT64_C(1000000000);
  for (int index = 1; probe->name != NULL && answer->fault[0] == 0; probe++, index++) {
    if (answer->inputs > 1 && nanoseconds() > late) break;
    if (make_inputs(probe->name, input) != 0) continue;
    once(run, NULL);
    const unsigned char *expected = reference_outputs + (size_t)index * output_bytes;
    if (strcmp(probe->name, "NaN") == 0) of_nan = expected;
    const unsigned char *spoilt = strcmp(probe->name, "infinite") == 0 ? of_nan : NULL;
    struct difference worst = compare(output, expected, spoilt, probe->tolerances);
    if (worst.error <= worst.tolerance)
      answer->inputs++;
    else
      snprintf(answer->fault, sizeof answer->fault, "off by %.3g from PyTorch for the input \"%s\", %.3g is allowed",
               worst.error, probe->name, worst.tolerance);
  }
  memcpy(input, reference_inputs, input_bytes);
  answer->ok = answer->fault[0] == 0;
}

struct operator_time {
  const char *name;
  double median_us;
};

static int slower_first(const void *one, const void *other) {
  double a = ((const struct operator_time *)one)->median_us, b = ((const struct operator_time *)other)->median_us;
  return (a < b) - (a > b);
}

/* What each operator takes in one inference, all its calls together. Returns how many operators there are. */
static size_t time_operators(const struct run *run, int repeat, struct operator_time *operators) {
  const struct network *network = &model_network;
  size_t steps = network->step_count, count = 0;
  size_t *owner = allocate(steps * sizeof *owner);
  uint64_t *times = allocate((steps + 1) * sizeof *times);
  for (size_t step = 0; step < steps; step++) {
    size_t found = 0;
    while (found < count && strcmp(operators[found].name, network->steps[step].name) != 0) found++;
    if (found == count) operators[count++] = (struct operator_time){network->steps[step].name, 0};
    owner[step] = found;
  }
  double *samples = allocate(count * (size_t)repeat * sizeof *samples);
  for (int sample = 0; sample < repeat; sample++) {
    once(run, times);
    for (size_t step = 0; step < steps; step++)
      samples[owner[step] * (size_t)repeat + (size_t)sample] += (double)(times[step + 1] - times[step]) / 1e3;
  }
  for (size_t index = 0; index < count; index++)
    operators[index].median_us = samples_of(samples + index * (size_t)repeat, repeat).median;
  qsort(operators, count, sizeof *operators, slower_first);
  free(samples);
  free(times);
  free(owner);
  return count;
}

/* Report */

struct result {
  const struct options *options;
  int threads;
  bool emulated; /* then no time means anything, and none is shown */
  struct samples latency_us;
  double cold_us;
  long peak_memory_bytes;
  const struct operator_time *operators;
  size_t operator_count;
  const struct answer *answer; /* NULL where the input was the user's */
};

static void print_times_json(const struct result *result) {
  const struct samples *us = &result->latency_us;
  printf("\"latency_us\": {\"median\": %.3f, \"min\": %.3f, \"p90\": %.3f, \"p99\": %.3f, \"samples\": %d}, ",
         us->median, us->min, us->p90, us->p99, us->count);
  printf("\"cold_us\": %.3f, \"operators\": [", result->cold_us);
  for (size_t index = 0; index < result->operator_count; index++) {
    printf("%s{\"name\": ", index ? ", " : "");
    print_quoted(result->operators[index].name);
    printf(", \"median_us\": %.3f}", result->operators[index].median_us);
  }
  printf("], ");
}

static void print_json(const struct result *result) {
  printf("{\"schema\": %d, \"model\": ", SCHEMA);
  print_quoted(model_network.name);
  printf(", \"device\": ");
  print_device_json();
  printf(", \"threads\": %d, \"affinity\": ", result->threads);
  print_processors_json();
  printf(", \"emulated\": %s, ", result->emulated ? "true" : "false");
  if (!result->emulated) print_times_json(result);
  printf("\"peak_memory_bytes\": %ld", result->peak_memory_bytes);
  const struct answer *answer = result->answer;
  if (answer != NULL) {
    printf(", \"output\": {\"checksum\": %.9g, \"expected\": %.9g, \"ok\": %s, \"max_abs_err\": %.3g, "
           "\"tolerance\": %.3g, \"inputs\": %d, \"fault\": ",
           isfinite(answer->checksum) ? answer->checksum : 0, answer->expected, answer->ok ? "true" : "false",
           isfinite(answer->worst.error) ? answer->worst.error : 1e300, answer->worst.tolerance, answer->inputs);
    print_quoted(answer->fault);
    printf(", \"name\": ");
    print_quoted(answer->worst.output);
    printf("}");
  }
  printf("}\n");
}

static void print_times(const struct result *result) {
  const struct samples *us = &result->latency_us;
  printf("ms         median       min       p90       p99   samples\n");
  printf("warm    %9.3f %9.3f %9.3f %9.3f %9d\n", us->median / 1e3, us->min / 1e3, us->p90 / 1e3, us->p99 / 1e3,
         us->count);
  printf("cold    %9.3f   the first inference\n\n", result->cold_us / 1e3);
  printf("operator                 median us\n");
  for (size_t index = 0; index < result->operator_count; index++)
    printf("%-24s %9.1f\n", result->operators[index].name, result->operators[index].median_us);
}

static void print_table(const struct result *result) {
  print_device();
  printf("%s, %d thread%s\n\n", model_network.name, result->threads, result->threads == 1 ? "" : "s");
  if (result->emulated)
    printf("run by an emulator: times mean nothing here, and none is shown\n");
  else
    print_times(result);
  printf("\npeak memory %.2f MB\n", (double)result->peak_memory_bytes / 1e6);
  if (result->answer != NULL)
    printf("checksum %.6g, expected %.6g; largest error %.2g, %.2g allowed; right for %d input%s\n",
           result->answer->checksum, result->answer->expected, result->answer->worst.error,
           result->answer->worst.tolerance, result->answer->inputs, result->answer->inputs == 1 ? "" : "s");
}

int main(int count, char **arguments) {
  const struct options options = parse(count, arguments);
  if (options.affinity != NULL) pin(options.affinity);
  const struct network *network = &model_network;
  size_t input_bytes = total(network->inputs, network->input_count);
  size_t output_bytes = total(network->outputs, network->output_count);
  unsigned char *input = options.input ? read_input(options.input, input_bytes) : allocate(input_bytes);
  if (options.input == NULL) memcpy(input, reference_inputs, input_bytes);
  unsigned char *output = allocate(output_bytes);
  struct run run = {NULL, allocate(network->input_count * sizeof(tvmsn_input)),
                    allocate(network->output_count * sizeof(tvmsn_output))};
  for (size_t index = 0, offset = 0; index < network->input_count; offset += network->inputs[index++].bytes)
    run.inputs[index] = (tvmsn_input){input + offset, network->inputs[index].bytes};
  for (size_t index = 0, offset = 0; index < network->output_count; offset += network->outputs[index++].bytes)
    run.outputs[index] = (tvmsn_output){output + offset, network->outputs[index].bytes};

  int status = driver_create(network, options.threads, &run.instance);
  if (status == TVMSN_CPU) fail(EXIT_DEVICE, driver_cpu_text(network), "");
  if (status != TVMSN_OK) fail(EXIT_DEVICE, driver_status_text(status), "");
  double cold_us = once(&run, NULL);
  struct answer answer = judge(output, output_bytes);
  if (options.output != NULL) write_output(options.output, output, output_bytes);
  if (options.input == NULL && answer.ok) judge_rest(&run, input, input_bytes, output, output_bytes, &answer);
  if (options.input == NULL && !answer.ok && !options.json)
    fail(EXIT_WRONG, "the answer is wrong, so no time is shown", answer.fault);
  for (int index = 0; index < options.warmup; index++) once(&run, NULL);
  double *times = allocate((size_t)options.repeat * sizeof *times);
  for (int sample = 0; sample < options.repeat; sample++) times[sample] = once(&run, NULL);
  struct operator_time *operators = allocate((network->step_count + 1) * sizeof *operators);
  struct result result = {
      .options = &options,
      .threads = driver_threads(run.instance),
      .emulated = is_emulated(),
      .latency_us = samples_of(times, options.repeat),
      .cold_us = cold_us,
      .operator_count = time_operators(&run, options.repeat, operators),
      .operators = operators,
      .peak_memory_bytes = peak_memory_bytes(),
      .answer = options.input == NULL ? &answer : NULL,
  };
  (options.json ? print_json : print_table)(&result);
  driver_destroy(run.instance);
  return result.answer != NULL && !answer.ok ? EXIT_WRONG : 0;
}

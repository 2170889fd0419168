#define _GNU_SOURCE
#include "device.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TEXT_BYTES = 256 };

static bool trimmed(char *text) {
  size_t length = strlen(text);
  while (length > 0 && strchr(" \t\r\n", text[length - 1]) != NULL) text[--length] = '\0';
  return length > 0;
}

static bool read_line(const char *path, char *text) {
  FILE *file = fopen(path, "r");
  if (file == NULL) return false;
  char *got = fgets(text, TEXT_BYTES, file);
  fclose(file);
  return got != NULL && trimmed(text);
}

/* The value of the `nth` line of /proc/cpuinfo that begins with `key`. */
static bool cpuinfo(const char *key, int nth, char *text) {
  FILE *file = fopen("/proc/cpuinfo", "r");
  if (file == NULL) return false;
  char line[1024];
  bool found = false;
  while (!found && fgets(line, sizeof line, file) != NULL) {
    char *colon = strchr(line, ':');
    if (strncmp(line, key, strlen(key)) != 0 || colon == NULL || nth-- > 0) continue;
    while (*++colon == ' ') {
    }
    snprintf(text, TEXT_BYTES, "%.*s", TEXT_BYTES - 1, colon);
    found = trimmed(text);
  }
  fclose(file);
  return found;
}

/* Android's name of the phone. */
static bool android_property(const char *name, char *text) {
  int ends[2];
  if (access("/system/bin/getprop", X_OK) != 0 || pipe(ends) != 0) return false;
  pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    execl("/system/bin/getprop", "getprop", name, (char *)NULL);
    _exit(127);
  }
  close(ends[1]);
  FILE *file = fdopen(ends[0], "r");
  char *got = file == NULL ? NULL : fgets(text, TEXT_BYTES, file);
  if (file != NULL) fclose(file);
  if (child > 0) waitpid(child, NULL, 0);
  return got != NULL && trimmed(text);
}

static bool device_model(char *text) {
  return android_property("ro.product.model", text) || read_line("/sys/firmware/devicetree/base/model", text) ||
         cpuinfo("Model", 0, text) || cpuinfo("Hardware", 0, text) || cpuinfo("model name", 0, text);
}

static bool kernel(char *text) {
  struct utsname name;
  if (uname(&name) != 0) return false;
  snprintf(text, TEXT_BYTES, "%.60s %.120s %.60s", name.sysname, name.release, name.machine);
  return true;
}

static bool about_processor(int cpu, const char *file, char *text) {
  char path[128];
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", cpu, file);
  return read_line(path, text);
}

/* Those that the machine has, whether this process may use them or not. */
static int processors(void) {
  char path[64];
  for (int count = 0;; count++) {
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d", count);
    if (access(path, F_OK) != 0) return count > 0 ? count : (int)sysconf(_SC_NPROCESSORS_ONLN);
  }
}

static int first_processor(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 0;
  int cpu = 0;
  while (cpu < CPU_SETSIZE - 1 && !CPU_ISSET((size_t)cpu, &set)) cpu++;
  return cpu;
}

static bool governor(char *text) { return about_processor(first_processor(), "cpufreq/scaling_governor", text); }

void print_quoted(const char *text) {
  putchar('"');
  for (; *text != '\0'; text++) {
    if (*text == '"' || *text == '\\') putchar('\\');
    if ((unsigned char)*text < ' ')
      printf("\\u%04x", (unsigned char)*text);
    else
      putchar(*text);
  }
  putchar('"');
}

static void print_fact(const char *name, bool known, const char *text) {
  printf("\"%s\": ", name);
  if (known)
    print_quoted(text);
  else
    printf("null");
}

static void print_core(int cpu) {
  char text[TEXT_BYTES];
  printf("{\"cpu\": %d, ", cpu);
  bool known = cpuinfo("CPU part", cpu, text);
  print_fact("part", known, text);
  known = about_processor(cpu, "cpufreq/cpuinfo_max_freq", text);
  printf(", \"max_khz\": ");
  if (known && strspn(text, "0123456789") == strlen(text))
    printf("%s}", text);
  else
    printf("null}");
}

void print_device_json(void) {
  char text[TEXT_BYTES];
  bool known = device_model(text);
  printf("{");
  print_fact("model", known, text);
  known = kernel(text);
  printf(", ");
  print_fact("kernel", known, text);
  known = governor(text);
  printf(", ");
  print_fact("governor", known, text);
  printf(", \"cores\": [");
  for (int cpu = 0, count = processors(); cpu < count; cpu++) {
    if (cpu > 0) printf(", ");
    print_core(cpu);
  }
  printf("]}");
}

void print_device(void) {
  char text[TEXT_BYTES];
  printf("%s, ", device_model(text) ? text : "a machine without a name");
  printf("%s, ", kernel(text) ? text : "kernel unknown");
  printf("governor %s, ", governor(text) ? text : "unknown");
  printf("%d processors\n", processors());
}

void print_processors_json(void) {
  cpu_set_t set;
  bool first = true;
  printf("[");
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
      if (CPU_ISSET((size_t)cpu, &set)) {
        printf("%s%d", first ? "" : ", ", cpu);
        first = false;
      }
  printf("]");
}

long peak_memory_bytes(void) {
  FILE *file = fopen("/proc/self/status", "r");
  char line[TEXT_BYTES];
  long kilobytes = 0;
  while (file != NULL && fgets(line, sizeof line, file) != NULL)
    if (sscanf(line, "VmHWM: %ld kB", &kilobytes) == 1) break;
  if (file != NULL) fclose(file);
  return kilobytes * 1024;
}

#define _GNU_SOURCE
#include "emulation.h"

#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The beginning of this program as it was loaded, by the linker. */
extern const ElfW(Ehdr) __ehdr_start __attribute__((weak, visibility("hidden")));

/* What the kernel executes is then the emulator. It answers for /proc/self/exe with the program that it runs, so that
 * programs find themselves, but not for the same link by way of the thread: that file does not begin as this program. */
bool is_emulated(void) {
  char path[64];
  ElfW(Ehdr) header;
  snprintf(path, sizeof path, "/proc/self/task/%ld/exe", syscall(SYS_gettid));
  FILE *file = fopen(path, "rb");
  if (file == NULL) return false; /* without /proc nobody knows */
  bool known = fread(&header, sizeof header, 1, file) == 1 && &__ehdr_start != NULL;
  fclose(file);
  return known && memcmp(&header, &__ehdr_start, sizeof header) != 0;
}

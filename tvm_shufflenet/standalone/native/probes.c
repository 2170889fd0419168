#include "probes.h"

#include <math.h>
#include <string.h>

static void scale(const float *data, float *made, size_t count, float factor) {
  for (size_t index = 0; index < count; index++) made[index] = data[index] * factor;
}

int make_probe(const char *name, const float *data, float *made, size_t count) {
  if (strcmp(name, "other") == 0) {
    for (size_t index = 0; index < count; index++) made[index] = data[count - 1 - index] * -0.5f;
  } else if (strcmp(name, "large") == 0) {
    scale(data, made, count, 0x1p10f);
  } else if (strcmp(name, "zero") == 0) {
    memset(made, 0, count * sizeof *made);
  } else if (strcmp(name, "denormal") == 0) {
    scale(data, made, count, 0x1p-130f);
  } else if (strcmp(name, "NaN") == 0) {
    memcpy(made, data, count * sizeof *made);
    made[count / 4] = made[count / 2] = NAN;
  } else if (strcmp(name, "infinite") == 0) {
    memcpy(made, data, count * sizeof *made);
    made[count / 4] = -INFINITY;
    made[count / 2] = INFINITY;
  } else {
    return -1;
  }
  return 0;
}

#include "samples.h"

#include <stdlib.h>

static int ascending(const void *one, const void *other) {
  double a = *(const double *)one, b = *(const double *)other;
  return (a > b) - (a < b);
}

static double percentile(const double *sorted, int count, int percent) {
  int rank = (count * percent + 99) / 100;
  return sorted[rank > 0 ? rank - 1 : 0];
}

struct samples samples_of(double *values, int count) {
  qsort(values, (size_t)count, sizeof *values, ascending);
  double median = count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
  return (struct samples){median, values[0], percentile(values, count, 90), percentile(values, count, 99), count};
}

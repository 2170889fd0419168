/* Statistics of latency samples. */
#ifndef SAMPLES_H
#define SAMPLES_H

struct samples {
  double median, min, p90, p99;
  int count;
};

/* Sorts `values`. A percentile is the smallest sample that so many of all do not exceed. */
struct samples samples_of(double *values, int count);

#endif

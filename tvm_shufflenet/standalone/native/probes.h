/* The inputs that a model is verified with: each follows from those that a benchmark carries. The same rules as
   tvm_shufflenet/verification/probes.py has, bit for bit. */
#ifndef PROBES_H
#define PROBES_H

#include <stddef.h>

struct probe {
  const char *name; /* NULL ends a list */
  const double *tolerances; /* by output, the largest difference from PyTorch's answer that rounding explains */
};

/* Makes the input `name` of the `count` numbers in `data`. Returns 0, or -1 for a name without a rule. */
int make_probe(const char *name, const float *data, float *made, size_t count);

#endif

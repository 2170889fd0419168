/* Lets TVM's evaluator call a standalone network of one input and one output, as a function of two tensors. */
#include "driver.h"

extern const struct network model_network;

/* TVMFFIAny and the beginning of DLTensor, as tvm_ffi's c_api.h and dlpack.h declare them. */
struct any {
  int32_t type;
  uint32_t unused;
  void *pointer;
};

struct tensor {
  void *data;
};

enum { DL_TENSOR = 7, OBJECT_HEADER = 24 };

static struct tensor *tensor(const struct any *argument) {
  char *object = argument->pointer;
  return (struct tensor *)(argument->type == DL_TENSOR ? object : object + OBJECT_HEADER);
}

__attribute__((visibility("default"))) int __tvm_ffi_standalone(void *self, const struct any *arguments, int32_t count,
                                                                struct any *result) {
  static struct instance *instance;
  (void)self, (void)count, (void)result;
  if (instance == NULL && driver_create(&model_network, THREADS, &instance) != TVMSN_OK) return -1;
  const tvmsn_input input = {tensor(&arguments[0])->data, model_network.inputs[0].bytes};
  const tvmsn_output output = {tensor(&arguments[1])->data, model_network.outputs[0].bytes};
  return driver_run(instance, &input, 1, &output, 1) == TVMSN_OK ? 0 : -1;
}

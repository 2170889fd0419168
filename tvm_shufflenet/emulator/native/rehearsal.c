/* A function that does nothing, in a library that TVM loads like any other: what a rehearsal runs. */
#include <stdint.h>

int __tvm_ffi_main(void *handle, const void *arguments, int32_t count, void *result)
{
    return 0;
}

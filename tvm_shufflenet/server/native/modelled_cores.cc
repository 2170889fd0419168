#include "modelled_cores.h"

#include <sys/syscall.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <unistd.h>

#include <cstdint>

// TVM's threads would run at once under QEMU, in another order every time, and share simulated caches as it happens. A
// region's shares do not depend on each other, so doing them in order computes the same, and counts the same every
// time. The plugin keeps a first level cache and counts for each core; the cycle model takes the slowest share.

namespace {

constexpr long kShare = 0x7e58;  // see plugin.c

int cores = 1;

// As tvm/runtime/c_backend_api.h declares them; the wheel does not ship that header.
struct ParallelGroupEnv {
  void* sync_handle;
  int32_t num_task;
};
using ParallelLambda = int (*)(int task_id, ParallelGroupEnv* env, void* data);

int LaunchInOrder(ParallelLambda lambda, void* data, int tasks) {
  ParallelGroupEnv env{nullptr, tasks > 0 && tasks < cores ? tasks : cores};
  if (env.num_task == 1) return lambda(0, &env, data);
  int failed = 0;
  for (int task = 0; task < env.num_task && failed == 0; task++) {
    syscall(SYS_getpriority, kShare, static_cast<long>(task), reinterpret_cast<long>(lambda));
    failed = lambda(task, &env, data);
  }
  syscall(SYS_getpriority, kShare, -1L, 0L);
  return failed;
}

}  // namespace

void UseModelledCores(int count) {
  cores = count;
  // Libraries are given the symbol that was registered last; TVM's own runtime has registered its own before.
  TVMFFIEnvModRegisterContextSymbol("__TVMBackendParallelLaunch", reinterpret_cast<void*>(LaunchInOrder));
}

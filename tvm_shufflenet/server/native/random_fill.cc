#include "random_fill.h"

#include <tvm/ffi/error.h>

#include <cstdint>
#include <cstring>
#include <random>

namespace {

template <typename T>
void Fill(const DLTensor& tensor, int64_t count) {
  std::minstd_rand generator;
  std::uniform_real_distribution<float> between(1, 10);
  T* data = reinterpret_cast<T*>(static_cast<char*>(tensor.data) + tensor.byte_offset);
  for (int64_t i = 0; i < count; ++i) data[i] = static_cast<T>(between(generator));
}

struct BFloat16 {  // the upper half of a float
  uint16_t bits;
  explicit BFloat16(float value) {
    uint32_t whole;
    memcpy(&whole, &value, sizeof(whole));
    bits = whole >> 16;
  }
};

}  // namespace

void RandomFillForMeasure(const DLTensor& tensor) {
  int64_t count = tensor.dtype.lanes;
  for (int i = 0; i < tensor.ndim; ++i) count *= tensor.shape[i];
  switch (tensor.dtype.code << 8 | tensor.dtype.bits) {
    case kDLFloat << 8 | 16: return Fill<_Float16>(tensor, count);
    case kDLFloat << 8 | 32: return Fill<float>(tensor, count);
    case kDLFloat << 8 | 64: return Fill<double>(tensor, count);
    case kDLBfloat << 8 | 16: return Fill<BFloat16>(tensor, count);
    case kDLBool << 8 | 8: return Fill<bool>(tensor, count);
    case kDLInt << 8 | 8: case kDLUInt << 8 | 8: return Fill<uint8_t>(tensor, count);
    case kDLInt << 8 | 16: case kDLUInt << 8 | 16: return Fill<uint16_t>(tensor, count);
    case kDLInt << 8 | 32: case kDLUInt << 8 | 32: return Fill<uint32_t>(tensor, count);
    case kDLInt << 8 | 64: case kDLUInt << 8 | 64: return Fill<uint64_t>(tensor, count);
  }
  TVM_FFI_THROW(TypeError) << "cannot fill a tensor of type code " << int(tensor.dtype.code) << " with "
                           << int(tensor.dtype.bits) << " bits";
}

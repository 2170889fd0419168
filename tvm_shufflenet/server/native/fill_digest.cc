#include "fill_digest.h"

#include <tvm/ffi/error.h>

#include <cstdio>
#include <cstring>
#include <type_traits>

namespace {

constexpr int kSums = 32;
constexpr uint32_t kWeightSeed = 0x7f4a7c15;

inline uint32_t Hash(uint32_t index, uint32_t seed) {
  uint32_t mixed = (index ^ seed) * 0x9e3779b1u;
  mixed = (mixed ^ mixed >> 15) * 0x85ebca77u;
  return mixed ^ mixed >> 13;
}

// Times a number from 1 to 2, of either sign, that the place chooses: the product is exact.
inline double Weighted(float value, uint32_t index) {
  uint32_t bits = (Hash(index, kWeightSeed) & 0x807fffffu) | 0x3f800000u;
  float weight;
  memcpy(&weight, &bits, sizeof(weight));
  return static_cast<double>(value) * weight;
}

uint32_t Count(const DLTensor& tensor) {
  int64_t product = 1;
  for (int i = 0; i < tensor.ndim; ++i) product *= tensor.shape[i];
  return static_cast<uint32_t>(product);
}

template <typename T>
T* Elements(const DLTensor& tensor) {
  return reinterpret_cast<T*>(static_cast<char*>(tensor.data) + tensor.byte_offset);
}

// Calls `visit` with the tensor's elements, whose type it learns that way.
template <typename Visit>
void WithElements(const DLTensor& tensor, Visit visit) {
  bool is_float = tensor.dtype.code == kDLFloat && tensor.dtype.lanes == 1;
  if (is_float && tensor.dtype.bits == 32) {
    visit(Elements<float>(tensor));
  } else if (is_float && tensor.dtype.bits == 16) {
    visit(Elements<_Float16>(tensor));
  } else {
    TVM_FFI_THROW(TypeError) << "only float32 and float16 tensors can be filled and digested here";
  }
}

}  // namespace

void FillFromHash(const DLTensor& tensor, uint32_t seed) {
  constexpr float kUnit = 1.0f / (1 << 23);  // of a 24-bit signed integer: exact, and so the same everywhere
  uint32_t count = Count(tensor);
  WithElements(tensor, [&](auto* data) {
    for (uint32_t i = 0; i < count; ++i) {
      float number = static_cast<float>(static_cast<int32_t>(Hash(i, seed)) >> 8) * kUnit;
      data[i] = static_cast<std::remove_pointer_t<decltype(data)>>(number);  // to the nearest, as NumPy does
    }
  });
}

std::string Digest(const DLTensor& tensor) {
  double sums[kSums] = {};
  WithElements(tensor, [&](auto* data) {
    uint32_t count = Count(tensor), i = 0;
    for (; i + kSums <= count; i += kSums) {  // unrolled by the compiler, with all sums in vector registers
      for (int j = 0; j < kSums; ++j) sums[j] += Weighted(data[i + j], i + j);
    }
    for (int j = 0; i < count; ++i, ++j) sums[j] += Weighted(data[i], i);
  });
  std::string text;
  char number[32];
  for (double sum : sums) {
    snprintf(number, sizeof(number), "%.17g ", sum);
    text += number;
  }
  return text;
}

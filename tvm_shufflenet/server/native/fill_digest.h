// How a trial's result is checked where it is: sending tensors to and from an emulated core costs 0.2 s a megabyte.
// devices/operands.py has the same two functions in numpy, equal bit for bit.
#pragma once

#include <dlpack/dlpack.h>

#include <cstdint>
#include <string>

// Fills a float32 tensor with numbers in [-1, 1) that follow from `seed` and an element's index, none of them denormal.
void FillFromHash(const DLTensor& tensor, uint32_t seed);

// 32 sums of a float32 tensor's elements, as text: element i counts in sum i % 32, times a number from 1 to 2 of either
// sign that a hash of i chooses. A wrong element shows in its sum, exchanged ones by these weights, and a NaN makes its
// sum NaN.
std::string Digest(const DLTensor& tensor);

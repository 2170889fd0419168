// Inputs for measuring: MetaSchedule has the device fill its own tensors, rather than sending them over the network.
#pragma once

#include <dlpack/dlpack.h>

// Fills a CPU tensor with numbers from 1 to 10, as TVM's function of that name does, the same ones every time. The
// original is in a library of 1.3 MB that a device needs for nothing else, and it starts TVM's thread pool.
void RandomFillForMeasure(const DLTensor& tensor);

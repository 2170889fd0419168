// The clock of the emulated device: it reports what the executed code would take on the modelled core.
#pragma once

#include <tvm/ffi/any.h>

#include <functional>
#include <string>

// The AF_UNIX socket of the service that prices executed code. Connects to it: under QEMU a session may not do so later,
// and the service knows by the connection whose counts it may ask for.
void UseCostSocket(const std::string& path);

// Closes the connection, which must not be shared with processes that are forked afterwards.
void LeaveCostService();

// The name of the modelled core, empty where the service does not say.
std::string ModelledCore();

// Of the latest measurement, 0 before the first.
int64_t LatestNanoseconds();

// Empties the modelled caches. What a server did before a session, for its tracker say, depends on real time, and what it
// left there to be written back would be on the session's bill.
void EmptyModelledCaches();

// A new tvm::runtime::Timer, not started.
tvm::ffi::Any ModelledTimer();

// What `work` takes on the modelled core, in nanoseconds. Throws where it cannot be priced.
int64_t NanosecondsOf(const std::function<void()>& work);

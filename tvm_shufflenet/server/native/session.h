// What a client reaches once its connection is accepted: TVM's RPC loop, file transfer, module loading, the clock.
#pragma once

#include <string>

#include "keeper.h"
#include "sandbox.h"

struct SessionConfig {
  std::string folder;       // the client's files live here
  Limits limits;
  std::string cost_socket;  // empty: measure; otherwise the service that prices what was executed
  int modelled_cores = 1;   // with a cost socket: how many cores share a parallel region
  Keeper keeper;            // writes the files; without one the session does
};

// Serves the client on `fd` until it leaves. Runs in a process of its own and ends it.
[[noreturn]] void ServeSession(int fd, const SessionConfig& config);

// Serves the client on `fd` in this process, and returns when it has left. Sessions that are forked afterwards find all
// code of the way of a session translated: under an emulator that is most of what a short one takes.
void RehearseSession(int fd, const SessionConfig& config);

// Tells the client on `fd`, which waits for the result of a call, that its session is over and why.
void SendSessionError(int fd, const std::string& message);

// Empty if the TVM FFI library that was loaded is the one this program was compiled for, otherwise what is wrong.
std::string RuntimeMismatch();

// Which system calls a session may make, on Linux and without any library: system_calls.h lists them.
#pragma once

// Whether this kernel filters system calls. QEMU's user emulation does not.
bool SeccompAvailable();

// From now on this process's new threads, and their cores, are decided on by whoever reads the descriptor that this
// returns; -1 where the kernel does not ask (before Linux 5.9).
int SuperviseThreads();

// From now on, in this process and its threads; to be called with no_new_privs set and before any thread is started.
bool FilterSystemCalls();

// System calls that a session may not make: what no operator, and nothing that serves one, ever needs.
#pragma once

// Whether the kernel filters system calls; an emulator, which makes them in the session's place, does not.
bool SeccompAvailable();

// For a session's process, and all threads that it starts. What is refused fails with EPERM, as for want of rights.
// Returns whether the filter is in place.
bool FilterSystemCalls();

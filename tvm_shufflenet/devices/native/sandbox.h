// What a session may not do. It runs whatever its client uploads, so this contains accidents; it is no prison.
#pragma once

#include <cstdint>
#include <string>

struct Limits {
  int64_t memory_bytes = 0;  // of address space; 0: none
  int64_t disk_bytes = 0;    // of its files, each and together; 0: none
};

// For the whole server, after its port is bound: the user to become, by name, if any. Nothing that is started
// afterwards can gain rights. Returns what went wrong, or nothing.
std::string DropRights(const std::string& user, const std::string& work_dir);

// In a session's process, before it serves its client: limits, and no capabilities even for root.
void Confine(const Limits& limits);

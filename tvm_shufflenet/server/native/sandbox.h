// What a session may not do, beside the system calls that it may not make (seccomp.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct Limits {
  int64_t memory_bytes = 0;  // of address space; 0: none
  int64_t disk_bytes = 0;    // of its files, each and together; 0: none
};

// For the whole server, after its port is bound: the user to become, by name, if any. Nothing that is started
// afterwards can gain rights. Returns what went wrong, or nothing.
std::string DropRights(const std::string& user, const std::string& work_dir);

// For the whole server, once nothing reads its environment any more: sessions find an empty one, but for the numbers of
// threads that TVM reads in it.
void LeaveEnvironment();

// For the whole server: other processes of its user may not look into it or its sessions, and it inherits what sessions
// leave behind.
void BeUnseen();

// Before and after a session is forked: should memory run out, the kernel ends it, and not the server.
void PreferForOom(bool preferred);

// In a session's process, before it serves its client: no terminal, no stdin.
void LeaveTerminal();

// No open files but these, stdin, stdout and stderr. Not under an emulator, which has files of its own open.
void CloseAllBut(std::vector<int> kept);

// No capabilities, even for root.
void DropCapabilities();

// In a session's process, before it serves its client: limits, and no capabilities.
void Confine(const Limits& limits);

// By Landlock, where the kernel has it: of all files, the system's libraries, this program's and those in `folder`, to
// be read; no TCP, and no signals to other processes. False if the kernel has it and it failed.
bool ConfineFiles(const std::string& folder);

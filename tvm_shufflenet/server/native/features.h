// What this CPU can execute, in LLVM's names.
#pragma once

#include <map>
#include <string>

// Every feature that is looked for, and whether the CPU and the kernel have it. What generated code cannot contain,
// such as instructions for cryptography, is not looked for.
std::map<std::string, bool> CpuFeatures();

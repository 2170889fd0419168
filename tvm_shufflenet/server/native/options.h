// The command line of the device server.
#pragma once

#include <string>

#include "sandbox.h"

struct Options {
  std::string host = "127.0.0.1";
  int port = 0;      // 0: any free one
  int port_end = 0;  // ports from `port` up to this one, exclusive, are tried in turn
  std::string work_dir;
  std::string tracker_host;
  int tracker_port = 0;
  std::string key;
  std::string custom_addr;
  double session_timeout_s = 0;  // 0: none
  int max_sessions = 8;
  std::string secret;  // empty: none
  bool insecure = false, allow_root = false;
  std::string user;  // to become, when started as root
  enum class Seccomp { kAuto, kOn, kOff } seccomp = Seccomp::kAuto;  // kAuto: on where the kernel has it
  Limits limits{0, int64_t{1} << 30};
  std::string cost_socket;
  int modelled_cores = 1;

  bool has_tracker() const { return !tracker_host.empty(); }
};

// Ends the process, with status 2 for a wrong command line and 0 after --help.
Options ParseOptions(int argc, char** argv);

#include "options.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>

namespace {

constexpr size_t kMinSecretBytes = 16, kMaxSecretBytes = 4096;

constexpr const char* kUsage = R"(usage: tvm_shufflenet_server [options]
  --host ADDRESS             listen on this address (127.0.0.1; 0.0.0.0 for every network)
  --port N                   listen on this port (0: any free one)
  --port-end N               try ports from --port up to this one, exclusive
  --work-dir DIR             keep the files of sessions here (a new folder under /tmp)
  --tracker HOST:PORT        offer this device at a TVM RPC tracker; needs --key
  --key KEY                  what clients ask for
  --custom-addr ADDRESS      the address the tracker tells clients, if not the one it sees
  --session-timeout SECONDS  end every session after this long (0: no limit)
  --max-sessions N           serve so many clients at once (8; with a tracker 1)
  --secret-file FILE         give sessions only to clients that know what is in this file
  --secret-fd N              the same, of what this open file (a pipe) holds
  --insecure                 without a secret, listen beyond loopback all the same: whoever connects can run code here
  --user NAME                started as root, become this user
  --allow-root               run sessions as root, which is refused otherwise
  --session-memory MB        limit the address space of a session (0: no limit)
  --session-disk MB          limit the files of a session (1024; 0: no limit)
  --seccomp auto|on|off      filter a session's system calls (auto: where the kernel does; on: do not start without)
  --cost-socket PATH         emulated device: report times from the cost service at this socket
  --modelled-cores N         emulated device: share parallel regions among so many cores (1)
)";

[[noreturn]] void UsageError(const std::string& message) {
  fprintf(stderr, "%stvm_shufflenet_server: %s\n", kUsage, message.c_str());
  exit(2);
}

long Number(const std::string& option, const std::string& text, long low, long high) {
  long value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < low || value > high) {
    std::string range = std::to_string(low) + " to " + std::to_string(high);
    UsageError(option + " needs a number from " + range + ", not '" + text + "'");
  }
  return value;
}

int64_t Megabytes(const std::string& option, const std::string& text) {
  return int64_t{Number(option, text, 0, 1 << 30)} << 20;
}

double Seconds(const std::string& option, const std::string& text) {
  char* end = nullptr;
  double value = strtod(text.c_str(), &end);
  if (text.empty() || *end || !std::isfinite(value) || value < 0) {
    UsageError(option + " needs a number of seconds, not '" + text + "'");
  }
  return value;
}

// Keys and addresses travel in JSON and in space-separated headers; a colon ends a key at the tracker.
std::string Word(const std::string& option, const std::string& text, bool colons) {
  for (unsigned char c : text) {
    if (c <= ' ' || c > '~' || c == '"' || c == '\\' || (c == ':' && !colons)) {
      UsageError(option + " takes printable ASCII without spaces, quotes" + (colons ? "" : ", colons") +
                 " and backslashes, not '" + text + "'");
    }
  }
  return text;
}

void SetTracker(const std::string& text, Options* options) {
  size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) UsageError("--tracker needs HOST:PORT, not '" + text + "'");
  std::string host = text.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  options->tracker_host = host;
  options->tracker_port = Number("--tracker", text.substr(colon + 1), 1, 65535);
}

Options::Seccomp Mode(const std::string& text) {
  if (text == "auto") return Options::Seccomp::kAuto;
  if (text == "on") return Options::Seccomp::kOn;
  if (text != "off") UsageError("--seccomp needs auto, on or off, not '" + text + "'");
  return Options::Seccomp::kOff;
}

std::string Secret(const std::string& what, std::string text) {
  while (!text.empty() && isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  if (text.size() < kMinSecretBytes) {
    UsageError(what + " needs at least " + std::to_string(kMinSecretBytes) +
               " characters; make one with: head -c 32 /dev/urandom | base64");
  }
  return text;
}

// A secret that others can read is none, and one that can be guessed neither: who connects may try as often as he likes.
std::string ReadSecret(const std::string& path) {
  std::ifstream file(path);
  struct stat status {};
  if (!file || stat(path.c_str(), &status) != 0) UsageError("--secret-file: cannot read '" + path + "'");
  if (status.st_mode & (S_IRWXG | S_IRWXO)) {
    UsageError("--secret-file: others may read '" + path + "'; run chmod 600 on it");
  }
  return Secret("--secret-file: '" + path + "'", std::string(std::istreambuf_iterator<char>(file), {}));
}

// From the process that started this one, which closes its end: no other ever sees it. Its number is free afterwards,
// so standard input is given something else.
std::string ReceiveSecret(int fd) {
  std::string text(kMaxSecretBytes, '\0');
  size_t size = 0;
  ssize_t count;
  while ((count = read(fd, text.data() + size, text.size() - size)) != 0 && (count > 0 || errno == EINTR)) {
    size += std::max<ssize_t>(count, 0);
  }
  if (count < 0) UsageError("--secret-fd: cannot read " + std::to_string(fd) + ": " + strerror(errno));
  text.resize(size);
  close(fd);
  if (fd == STDIN_FILENO && open("/dev/null", O_RDONLY) != STDIN_FILENO) UsageError("--secret-fd: no /dev/null");
  return Secret("--secret-fd", std::move(text));
}

}  // namespace

Options ParseOptions(int argc, char** argv) {
  Options options;
  const std::map<std::string, std::function<void(const std::string&)>> setters = {
      {"--host", [&](auto& text) { options.host = text; }},
      {"--port", [&](auto& text) { options.port = Number("--port", text, 0, 65535); }},
      {"--port-end", [&](auto& text) { options.port_end = Number("--port-end", text, 1, 65536); }},
      {"--work-dir", [&](auto& text) { options.work_dir = text; }},
      {"--tracker", [&](auto& text) { SetTracker(text, &options); }},
      {"--key", [&](auto& text) { options.key = Word("--key", text, false); }},
      {"--custom-addr", [&](auto& text) { options.custom_addr = Word("--custom-addr", text, true); }},
      {"--session-timeout", [&](auto& text) { options.session_timeout_s = Seconds("--session-timeout", text); }},
      {"--max-sessions", [&](auto& text) { options.max_sessions = Number("--max-sessions", text, 1, 64); }},
      {"--secret-file", [&](auto& text) { options.secret = ReadSecret(text); }},
      {"--secret-fd", [&](auto& text) { options.secret = ReceiveSecret(Number("--secret-fd", text, 0, 1023)); }},
      {"--user", [&](auto& text) { options.user = text; }},
      {"--session-memory", [&](auto& text) { options.limits.memory_bytes = Megabytes("--session-memory", text); }},
      {"--session-disk", [&](auto& text) { options.limits.disk_bytes = Megabytes("--session-disk", text); }},
      {"--seccomp", [&](auto& text) { options.seccomp = Mode(text); }},
      {"--cost-socket", [&](auto& text) { options.cost_socket = text; }},
      {"--modelled-cores", [&](auto& text) { options.modelled_cores = Number("--modelled-cores", text, 1, 16); }},
  };
  const std::map<std::string, bool*> flags = {{"--insecure", &options.insecure}, {"--allow-root", &options.allow_root}};
  for (int i = 1; i < argc; ++i) {
    std::string option = argv[i];
    if (option == "--help" || option == "-h") {
      fputs(kUsage, stdout);
      exit(0);
    }
    if (auto flag = flags.find(option); flag != flags.end()) {
      *flag->second = true;
      continue;
    }
    auto setter = setters.find(option);
    if (setter == setters.end()) UsageError("unknown option '" + option + "'");
    if (++i == argc) UsageError(option + " needs a value");
    setter->second(argv[i]);
  }
  if (options.has_tracker() && options.key.empty()) UsageError("--tracker needs --key");
  if (options.port_end && options.port_end <= options.port) UsageError("--port-end must be above --port");
  if (options.cost_socket.size() >= sizeof(sockaddr_un::sun_path)) {
    UsageError("--cost-socket: a socket's path has at most " + std::to_string(sizeof(sockaddr_un::sun_path) - 1) +
               " characters");
  }
  // The tracker gives a device to one client at a time, who may then count on having it alone.
  if (options.has_tracker()) options.max_sessions = 1;
  return options;
}

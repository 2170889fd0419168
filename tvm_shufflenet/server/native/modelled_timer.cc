#include "modelled_timer.h"

#include <dlfcn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <tvm/ffi/memory.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/object.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace tvm {
namespace runtime {

// TVM's header for this class includes headers that the wheel does not ship, so its interface is declared again: the
// order of the virtual functions and the type key are what TVM's runtime relies on.
class TimerNode : public ffi::Object {
 public:
  virtual void Start() = 0;
  virtual void Stop() = 0;
  virtual int64_t SyncAndGetElapsedNanos() = 0;
  virtual ~TimerNode() {}

  static constexpr const bool _type_mutable = true;
  TVM_FFI_DECLARE_OBJECT_INFO("runtime.TimerNode", TimerNode, ffi::Object);
};

class Timer : public ffi::ObjectRef {
 public:
  TVM_FFI_DEFINE_OBJECT_REF_METHODS_NULLABLE(Timer, ffi::ObjectRef, TimerNode);
};

}  // namespace runtime
}  // namespace tvm

namespace {

// A system call that means nothing to the kernel and that the QEMU plugin watches for. `who` 0 starts counting, k > 0
// stops it and names the counts.
constexpr long kMarker = 0x7e57, kEmptyCaches = 0x7e59;
constexpr int kAnswerTimeoutS = 120;  // pricing runs llvm-mca over every block that was executed

std::string cost_socket;
long measurements = 0;  // per process: the counts of one are named by its pid and this number
int64_t latest_nanoseconds = 0;

int connection = -1;  // to the cost service: a session opens it before it may not open any more

bool ConnectToCostService() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, cost_socket.c_str(), sizeof(address.sun_path) - 1);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  timeval limit{kAnswerTimeoutS, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    connection = fd;
    return true;
  }
  int reason = errno;
  close(fd);
  errno = reason;
  return false;
}

std::string AskCostService(const std::string& request) {
  if (connection < 0 && !ConnectToCostService()) {
    return "error the cost service at " + cost_socket + " cannot be reached: " + strerror(errno);
  }
  std::string answer;
  char chunk[512];
  ssize_t count = send(connection, request.data(), request.size(), MSG_NOSIGNAL);
  while (count > 0 && answer.find('\n') == std::string::npos) {
    do {  // with a time limit it is interrupted where the process is stopped and goes on
      count = recv(connection, chunk, sizeof(chunk), 0);
    } while (count < 0 && errno == EINTR);
    if (count > 0) answer.append(chunk, count);
  }
  size_t end = answer.find('\n');
  if (end != std::string::npos) return answer.substr(0, end);
  std::string reason = count < 0 && errno != EPIPE
                           ? "error the cost service did not answer: " + std::string(strerror(errno))
                           : "error the cost service closed the connection without an answer";
  LeaveCostService();
  return reason;
}

// Nanoseconds of measurement `k`, or -1 and what went wrong in `message`.
[[gnu::noinline]] int64_t Price(long k, char* message, size_t capacity) {
  std::string answer = AskCostService("price " + std::to_string(getpid()) + " " + std::to_string(k) + "\n");
  int64_t nanoseconds = 0;
  if (answer.rfind("ok ", 0) == 0) {
    const char* end = answer.data() + answer.size();
    auto parsed = std::from_chars(answer.data() + 3, end, nanoseconds);
    if (parsed.ec == std::errc() && parsed.ptr == end && nanoseconds > 0) return latest_nanoseconds = nanoseconds;
  }
  bool refused = answer.rfind("error ", 0) == 0;
  snprintf(message, capacity, "no modelled time: %s%s", refused ? "" : "the cost service answered ",
           answer.c_str() + (refused ? strlen("error ") : 0));
  return -1;
}

// TVM calls the timer through a C++ virtual function, so an error can only leave it as an exception, and only one that
// TVM's C++ library throws: this program's own is foreign to it (see session.cc). libstdc++ exports a function for it.
[[noreturn, gnu::noinline]] void ThrowInTVM(const char* message) {
  using Throw = void (*)(const char*);
  if (auto* raise = reinterpret_cast<Throw>(dlsym(RTLD_DEFAULT, "_ZSt21__throw_runtime_errorPKc"))) raise(message);
  fprintf(stderr, "%s\n", message);  // without it the session ends: an error, still no invented figure
  _exit(1);
}

// The marker is the last thing Start does and the first that Stop does, so that nothing else is counted.
class Measurement {
 public:
  void Start() { syscall(SYS_getpriority, kMarker, 0L); }

  void Stop() {
    syscall(SYS_getpriority, kMarker, measurements + 1);
    k_ = ++measurements;
  }

  int64_t Nanoseconds(char* message, size_t capacity) const { return Price(k_, message, capacity); }

 private:
  long k_ = 0;
};

class ModelledTimerNode : public tvm::runtime::TimerNode {
 public:
  void Start() override { measurement_.Start(); }
  void Stop() override { measurement_.Stop(); }

  // The exception of ThrowInTVM passes through this frame: nothing here may need a destructor.
  int64_t SyncAndGetElapsedNanos() override {
    static char message[1024];
    int64_t nanoseconds = measurement_.Nanoseconds(message, sizeof(message));
    if (nanoseconds < 0) ThrowInTVM(message);
    return nanoseconds;
  }

  TVM_FFI_DECLARE_OBJECT_INFO_FINAL("tvm_shufflenet.ModelledTimer", ModelledTimerNode, tvm::runtime::TimerNode);

 private:
  Measurement measurement_;
};

}  // namespace

void UseCostSocket(const std::string& path) {
  cost_socket = path;
  LeaveCostService();
  ConnectToCostService();
}

void LeaveCostService() {
  if (connection >= 0) close(connection);
  connection = -1;
}

std::string ModelledCore() {
  std::string answer = AskCostService("core\n");
  return answer.rfind("ok ", 0) == 0 ? answer.substr(3) : "";
}

int64_t LatestNanoseconds() { return latest_nanoseconds; }

int64_t NanosecondsOf(const std::function<void()>& work) {
  Measurement measurement;
  measurement.Start();
  work();
  measurement.Stop();
  char message[1024];
  int64_t nanoseconds = measurement.Nanoseconds(message, sizeof(message));
  if (nanoseconds < 0) TVM_FFI_THROW(RuntimeError) << message;
  return nanoseconds;
}

void EmptyModelledCaches() { syscall(SYS_getpriority, kEmptyCaches, 0L); }

tvm::ffi::Any ModelledTimer() { return tvm::runtime::Timer(tvm::ffi::make_object<ModelledTimerNode>()); }

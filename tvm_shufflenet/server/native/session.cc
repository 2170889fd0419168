#include "session.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/utsname.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>

#include "features.h"
#include "fill_digest.h"
#include "modelled_cores.h"
#include "modelled_timer.h"
#include "random_fill.h"
#include "sha256.h"

namespace fs = std::filesystem;
namespace ffi = tvm::ffi;

#if defined(__aarch64__)
constexpr int kMachine = EM_AARCH64;
constexpr const char* kArch = "aarch64";
#elif defined(__x86_64__)
constexpr int kMachine = EM_X86_64;
constexpr const char* kArch = "x86_64";
#else
#error "the device server runs on aarch64 and x86_64"
#endif

namespace {

// This program carries its own C++ library (zig's libc++); TVM's libraries use the system's libstdc++. Objects of the
// FFI pass between the two, C++ exceptions must not. So every call in either direction takes the FFI's C entry
// ("safe call"), which turns an exception into an error object on one side and throws it anew on the other.

using Body = std::function<ffi::Any(ffi::PackedArgs)>;

int CallBody(void* self, const TVMFFIAny* args, int32_t count, TVMFFIAny* result) {
  TVM_FFI_SAFE_CALL_BEGIN();
  ffi::PackedArgs packed(reinterpret_cast<const ffi::AnyView*>(args), count);
  *reinterpret_cast<ffi::Any*>(result) = (*static_cast<Body*>(self))(packed);
  TVM_FFI_SAFE_CALL_END();
}

void Register(const char* name, Body body) {
  auto deleter = [](void* self) { delete static_cast<Body*>(self); };
  ffi::Function::SetGlobal(name, ffi::Function::FromExternC(new Body(std::move(body)), CallBody, deleter), true);
}

ffi::Any CallFunction(const ffi::Function& function, const ffi::AnyView* args, int32_t count) {
  ffi::Any result;
  auto* handle = const_cast<ffi::FunctionObj*>(static_cast<const ffi::FunctionObj*>(function.get()));
  auto* packed = reinterpret_cast<TVMFFIAny*>(const_cast<ffi::AnyView*>(args));
  TVM_FFI_CHECK_SAFE_CALL(TVMFFIFunctionCall(handle, packed, count, reinterpret_cast<TVMFFIAny*>(&result)));
  return result;
}

template <typename... Args>
ffi::Any CallGlobal(const char* name, Args&&... args) {
  ffi::AnyView packed[sizeof...(args)];
  ffi::PackedArgs::Fill(packed, args...);
  return CallFunction(ffi::Function::GetGlobalRequired(name), packed, sizeof...(args));
}

// The path of a client's file. A name is one path component: whatever could leave the folder is refused. An empty name
// is the folder itself, which MetaSchedule asks to remove; under the name "." the system refuses to.
fs::path ClientFile(const fs::path& folder, const std::string& name) {
  if (name.empty()) return folder / ".";
  if (name == "." || name == ".." || name.find('/') != std::string::npos) {
    TVM_FFI_THROW(ValueError) << "file name '" << name << "' is refused: a plain name without folders is needed";
  }
  return folder / name;
}

std::string MachineName(int machine) {
  switch (machine) {
    case EM_AARCH64: return "aarch64";
    case EM_X86_64: return "x86-64";
    case EM_ARM: return "32-bit arm";
    case EM_386: return "32-bit x86";
    case EM_RISCV: return "riscv";
    default: return "ELF machine " + std::to_string(machine);
  }
}

// dlopen's own message for a foreign library is a puzzle; this one names both machines.
void CheckMachine(const fs::path& file) {
  std::string name = file.filename();
  std::ifstream in(file, std::ios::binary);
  if (!in) TVM_FFI_THROW(ValueError) << "no file '" << name << "' in this session: upload it first";
  Elf64_Ehdr header{};  // e_machine sits at the same offset in 32-bit files
  in.read(reinterpret_cast<char*>(&header), sizeof(header));
  if (std::string(reinterpret_cast<char*>(header.e_ident), SELFMAG) != ELFMAG) {
    TVM_FFI_THROW(ValueError) << "'" << name << "' is not a shared library (no ELF header)";
  }
  if (header.e_machine != kMachine) {
    TVM_FFI_THROW(ValueError) << "library is built for " << MachineName(header.e_machine) << ", this device is "
                              << MachineName(kMachine) << " ('" << name << "')";
  }
}

// Loads a copy under a name of its own: a later upload under the same name would otherwise overwrite the pages of the
// library that is mapped, and loading it would return the old one, since the loader knows libraries by path.
ffi::Any LoadModule(const fs::path& folder, const Keeper& keeper, const std::string& name) {
  static int loaded = 0;
  fs::path uploaded = ClientFile(folder, name);
  CheckMachine(uploaded);
  fs::path copy = folder / ("loaded-" + std::to_string(++loaded) + "-" + name);
  if (keeper.there()) keeper.Copy(name, copy.filename());
  else fs::copy_file(uploaded, copy, fs::copy_options::overwrite_existing);
  return CallGlobal("ffi.ModuleLoadFromFile", ffi::String(copy.string()));
}

// In a session without a keeper. Each file is limited by the system (sandbox.h); this is for many.
void CheckDisk(const fs::path& folder, int64_t limit_bytes) {
  int64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    std::error_code error;
    auto size = entry.is_regular_file(error) ? entry.file_size(error) : 0;
    bytes += error ? 0 : static_cast<int64_t>(size);
  }
  if (limit_bytes > 0 && bytes > limit_bytes) {
    TVM_FFI_THROW(ValueError) << "this session's files take " << bytes << " bytes, --session-disk allows "
                              << limit_bytes;
  }
}

std::string ListFolder(const fs::path& folder) {
  std::string names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names += (names.empty() ? "" : ",") + entry.path().filename().string();
  }
  return names;
}

std::string ServerInfo(bool modelled, int modelled_cores) {
  utsname system{};
  uname(&system);
  const char* format =
      R"({"arch": "%s", "kernel": "%s", "cpus": %ld, "pid": %d, "server": %d, "tvm": "%s", "tvm_ffi": "%s", "timer": "%s", "features": {)";
  char text[512];
  snprintf(text, sizeof(text), format, kArch, system.release, sysconf(_SC_NPROCESSORS_ONLN), getpid(), SERVER_VERSION,
           TVM_VERSION, FFI_VERSION, modelled ? "modelled" : "measured");
  std::string features;
  for (const auto& [name, present] : CpuFeatures()) {
    features += (features.empty() ? "\"" : ", \"") + name + "\": " + (present ? "true" : "false");
  }
  std::string clock = modelled ? ", \"core\": \"" + ModelledCore() + "\", \"cores\": " + std::to_string(modelled_cores) : "";
  return text + features + "}" + clock + "}";
}

// What arrived and what was answered, so that a client can tell whether the connection has changed either: TCP's
// checksum is weak, and proxies, adapters and memories on the way have none. The text ends with its own checksum.
std::string Receipt(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string content(fs::file_size(file), '\0');
  in.read(content.data(), content.size());
  std::string text = Hex(Sha256(content)) + " " + std::to_string(LatestNanoseconds());
  return text + " " + Hex(Sha256(text));
}

// In place of TVM's own, which write themselves.
void UseKeeper(const fs::path& folder, const Keeper& keeper) {
  Register("tvm.rpc.server.upload", [folder, keeper](ffi::PackedArgs args) {
    auto name = args[0].cast<std::string>();
    ClientFile(folder, name);
    keeper.Write(name, args[1].cast<std::string>());
    return ffi::Any();
  });
  Register("tvm.rpc.server.remove", [folder, keeper](ffi::PackedArgs args) {
    auto name = args[0].cast<std::string>();
    if (fs::exists(ClientFile(folder, name)) && !name.empty()) keeper.Remove(name);
    return ffi::Any();
  });
}

void RegisterGlobals(const SessionConfig& config) {
  fs::path folder = config.folder;
  bool modelled = !config.cost_socket.empty();
  // TVM's own upload, download and remove ask this function where a client's file is.
  int64_t disk_bytes = config.keeper.there() ? 0 : config.limits.disk_bytes;
  Register("tvm.rpc.server.workpath", [folder, disk_bytes](ffi::PackedArgs args) {
    CheckDisk(folder, disk_bytes);
    return ffi::Any(ffi::String(ClientFile(folder, args[0].cast<std::string>()).string()));
  });
  Register("tvm.rpc.server.load_module",
           [folder, keeper = config.keeper](ffi::PackedArgs args) {
             return LoadModule(folder, keeper, args[0].cast<std::string>());
           });
  if (config.keeper.there()) UseKeeper(folder, config.keeper);
  Register("tvm.rpc.server.listdir", [folder](ffi::PackedArgs) { return ffi::Any(ffi::String(ListFolder(folder))); });
  Register("tvm_shufflenet.server_info",
           [modelled, cores = config.modelled_cores](ffi::PackedArgs) {
             return ffi::Any(ffi::String(ServerInfo(modelled, cores)));
           });
  Register("tvm_shufflenet.receipt", [folder](ffi::PackedArgs args) {
    return ffi::Any(ffi::String(Receipt(ClientFile(folder, args[0].cast<std::string>()))));
  });
  Register("tvm.contrib.random.random_fill_for_measure", [](ffi::PackedArgs args) {
    RandomFillForMeasure(*args[0].cast<DLTensor*>());
    return ffi::Any();
  });
  Register("tvm_shufflenet.fill", [](ffi::PackedArgs args) {
    FillFromHash(*args[0].cast<DLTensor*>(), static_cast<uint32_t>(args[1].cast<int64_t>()));
    return ffi::Any();
  });
  Register("tvm_shufflenet.digest",
           [](ffi::PackedArgs args) { return ffi::Any(ffi::String(Digest(*args[0].cast<DLTensor*>()))); });
  if (modelled) {
    UseCostSocket(config.cost_socket);
    UseModelledCores(config.modelled_cores);
    Register("runtime.timer.cpu", [](ffi::PackedArgs) { return ModelledTimer(); });
    // TVM's time_evaluator runs a function twice to time it once; a trial is over with the first run.
    Register("tvm_shufflenet.time_once", [](ffi::PackedArgs args) {
      auto timed = CallGlobal("ffi.ModuleGetFunction", args[0], args[1], false).cast<ffi::Function>();
      return ffi::Any(NanosecondsOf([&] { CallFunction(timed, args.data() + 2, args.size() - 2); }));
    });
  }
}

}  // namespace

void RehearseSession(int fd, const SessionConfig& config) {
  try {
    RegisterGlobals(config);
    CallGlobal("rpc.ServerLoop", fd);
  } catch (const std::exception& error) {
    fprintf(stderr, "rehearsal: %s\n", error.what());
  }
  LeaveCostService();
}

void ServeSession(int fd, const SessionConfig& config) {
  try {
    RegisterGlobals(config);
    if (!config.cost_socket.empty()) EmptyModelledCaches();
    CallGlobal("rpc.ServerLoop", fd);
  } catch (const std::exception& error) {
    fprintf(stderr, "session %d: %s\n", getpid(), error.what());
    _exit(1);
  }
  _exit(0);  // not exit(): destructors of the libraries a client loaded are none of this program's business
}

void SendSessionError(int fd, const std::string& message) {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);  // the caller serves others and must not wait for this client
  try {
    CallGlobal("rpc.ReturnException", fd, ffi::String(message));
  } catch (const std::exception& error) {
    fprintf(stderr, "%s\n", error.what());
  }
}

std::string RuntimeMismatch() {
  TVMFFIVersion found{};
  TVMFFIGetVersion(&found);
  if (found.major == TVM_FFI_VERSION_MAJOR && found.minor == TVM_FFI_VERSION_MINOR &&
      found.patch == TVM_FFI_VERSION_PATCH) {
    return "";
  }
  return "libtvm_ffi.so is version " + std::to_string(found.major) + "." + std::to_string(found.minor) + "." +
         std::to_string(found.patch) + ", this program needs " FFI_VERSION;
}

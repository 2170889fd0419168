// The device server: TVM's RPC server for a machine without Python.
//
// The same program runs on a board, on a development machine and on the emulated core. One process listens, shakes
// hands and talks to the tracker; every session is a child process of its own, so that a client's crash, endless loop
// or leak ends with its session. The listening process has one thread and one poll() loop and waits for nobody: it
// forks, which mixes badly with threads, in particular under qemu-user.

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <list>
#include <memory>
#include <sstream>
#include <utility>
#include <vector>

#include "folders.h"
#include "gate.h"
#include "keeper.h"
#include "net.h"
#include "options.h"
#include "seccomp.h"
#include "session.h"
#include "tracker.h"

namespace fs = std::filesystem;

namespace {

// From tvm/rpc/base.py: what client and server say before RPC begins.
constexpr int32_t kRPCMagic = 0xff271, kRPCSuccess = kRPCMagic, kRPCMismatch = kRPCMagic + 2;
constexpr size_t kHeaderBytes = 2 * sizeof(int32_t);  // magic, length of the key that follows
constexpr int32_t kMaxKeyBytes = 4096;

constexpr double kHandshakeS = 2;
constexpr double kHangUpS = 2;  // a session whose client has gone may finish its call for so long
constexpr size_t kMaxHandshakes = 64;  // that are under way; those that are done and wait for a session are apart
constexpr size_t kMaxWaiting = 64;
constexpr double kRemovalS = 10;  // what is left of sessions may take so long at the end
constexpr int kRehearsalS = 5;  // a rehearsing client that says nothing for so long is hung up on

int wakeup[2];  // signal handlers write here, which ends poll()

void OnSignal(int signal) {
  int saved = errno;
  char byte = static_cast<char>(signal);
  if (write(wakeup[1], &byte, 1) < 0) {
    // the pipe is full: poll() wakes up anyway
  }
  errno = saved;
}

// A client that has connected and is saying, perhaps slowly, what it wants: a session, or to prove that it may have one.
struct Handshake {
  int fd;
  std::string peer;
  TimePoint deadline = After(kHandshakeS);
  std::string received = {};
  bool admitted = false;
  Knock knock = {};

  // Never more than the handshake: what follows belongs to the session.
  size_t BytesMissing() const {
    if (Knocks()) return knock.bytes_due - std::min(knock.bytes_due, received.size());
    if (received.size() < kHeaderBytes) return kHeaderBytes - received.size();
    return kHeaderBytes + KeyBytes() - received.size();
  }
  bool Complete() const { return BytesMissing() == 0; }
  bool gone = false;
  bool waiting = false;  // complete, admitted, and all sessions are taken
  int32_t KeyBytes() const { return ReadWireInt(received.data() + sizeof(int32_t)); }
  bool Knocks() const { return received.size() >= sizeof(int32_t) && ReadWireInt(received.data()) == kKnockMagic; }
  std::string WholeKey() const { return received.substr(kHeaderBytes); }
  bool Sane() const {
    if (Knocks()) return true;
    if (received.size() >= sizeof(int32_t) && ReadWireInt(received.data()) != kRPCMagic) return false;
    return received.size() < kHeaderBytes || (KeyBytes() >= 0 && KeyBytes() <= kMaxKeyBytes);
  }
};

struct Session {
  pid_t pid;
  int fd;  // kept open beside the child's own: to tell the client why its session ended
  std::string peer, folder;
  int folder_fd;
  TimePoint started = Clock::now();
  TimePoint deadline = kNever;
  double timeout_s = 0;
  TimePoint hang_up_deadline = kNever;
  enum { kRunning, kTimedOut, kAbandoned } state = kRunning;  // the last two are killed
};

std::string PeerText(const sockaddr_storage& address) {
  char host[INET6_ADDRSTRLEN] = "?";
  if (address.ss_family == AF_INET6) {
    auto* in6 = reinterpret_cast<const sockaddr_in6*>(&address);
    inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
    return AddressText(host, ntohs(in6->sin6_port));
  }
  auto* in = reinterpret_cast<const sockaddr_in*>(&address);
  inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
  return AddressText(host, ntohs(in->sin_port));
}

// The value of a client's option, empty without one.
std::string Option(const std::vector<std::string>& client_options, const std::string& name) {
  for (const std::string& option : client_options) {
    if (option.compare(0, name.size(), name) == 0) return option.substr(name.size());
  }
  return "";
}

// The shorter of what the client asks for and what the server allows; 0 is no limit.
double SessionTimeout(const std::vector<std::string>& client_options, double allowed_s) {
  double asked_s = strtod(Option(client_options, "-timeout=").c_str(), nullptr);
  if (!std::isfinite(asked_s) || asked_s <= 0) return allowed_s;
  return allowed_s > 0 ? std::min(allowed_s, asked_s) : asked_s;
}

std::string Number(double value) {
  char text[32];
  snprintf(text, sizeof(text), "%g", value);
  return text;
}

class Server {
 public:
  explicit Server(Options options) : gate_(options.secret) {
    Wipe(&options.secret);
    options_ = std::move(options);
  }

  // Returns what went wrong, or nothing.
  std::string Open();
  // Until SIGTERM or SIGINT.
  void Run();

 private:
  std::string Listen();
  std::string MakeWorkDir();
  std::string ChooseFilter();
  void Poll();
  void Accept();
  void Receive(Handshake& handshake);
  bool TooLate(Handshake& handshake);
  void AnswerAll();
  bool Answer(Handshake& handshake);
  bool AnswerKnock(Handshake& handshake);
  void Admit(const Handshake& knock);
  bool Proves(Handshake& handshake, const std::string& session_name);
  void StartSession(const Handshake& handshake, double timeout_s);
  bool IsRehearsal(const std::vector<std::string>& client_options) const;
  void JoinTracker();
  void Rehearse(const Handshake& handshake);
  [[noreturn]] void BecomeSession(int fd, const std::string& folder, int folder_fd, pid_t parent);
  [[noreturn]] void ServeConfined(int fd, const std::string& folder, int folder_fd);
  void CloseServersFiles(int kept);
  void MakeRoom();
  void StopOverdueSessions();
  void ReapSessions();
  void Remove(int folder_fd, const std::string& folder);
  void AwaitRemovals();
  void CloseSession(Session& session, int status);
  void ReadSignals();

  Gate gate_;
  Options options_;
  int listen_fd_ = -1;
  int port_ = 0;
  std::string work_dir_;
  bool remove_work_dir_ = false;
  bool filters_ = false;
  bool rehearsed_ = false;
  std::unique_ptr<TrackerLink> tracker_;
  std::list<Handshake> handshakes_;
  std::list<Session> sessions_;
  bool stopping_ = false;
};

std::string Server::Open() {
  std::string error = RuntimeMismatch();
  if (error.empty() && geteuid() == 0 && options_.user.empty() && !options_.allow_root) {
    error = "refused to run as root: clients run code here; name a user to become (--user NAME) or give --allow-root";
  }
  if (error.empty()) error = Listen();
  if (error.empty()) error = MakeWorkDir();
  if (error.empty()) error = DropRights(options_.user, work_dir_);
  if (error.empty()) error = ChooseFilter();
  if (!error.empty()) return error;
  if (pipe2(wakeup, O_CLOEXEC | O_NONBLOCK) != 0) return std::string("pipe: ") + strerror(errno);
  struct sigaction action {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  for (int signal : {SIGTERM, SIGINT, SIGCHLD}) sigaction(signal, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);  // a client that left is an error of its connection, not the end of the server
  // An emulated core is on offer once it has rehearsed: what came before would be timed otherwise.
  if (options_.cost_socket.empty()) JoinTracker();
  printf("listening %s\n", AddressText(options_.host, port_).c_str());
  fflush(stdout);
  return "";
}

void Server::JoinTracker() {
  if (!options_.has_tracker() || tracker_) return;
  tracker_ = std::make_unique<TrackerLink>(options_.tracker_host, options_.tracker_port, options_.key,
                                           options_.custom_addr, port_);
}

std::string Server::MakeWorkDir() {
  std::error_code error;
  if (!options_.work_dir.empty()) {
    fs::create_directories(options_.work_dir, error);
    if (error) return "cannot make " + options_.work_dir + ": " + error.message();
    work_dir_ = fs::absolute(options_.work_dir).string();
    return "";
  }
  fs::path temporary = fs::temp_directory_path(error);
  std::string name = ((error ? fs::path("/tmp") : temporary) / "tvm_shufflenet_server-XXXXXX").string();
  if (!mkdtemp(name.data())) return "cannot make " + name + ": " + strerror(errno);
  work_dir_ = name;
  remove_work_dir_ = true;
  return "";
}

// Under an emulator with a clock of its own a session is not confined at all, and nothing is to be said.
std::string Server::ChooseFilter() {
  if (options_.seccomp == Options::Seccomp::kOff || !options_.cost_socket.empty()) return "";
  filters_ = SeccompAvailable();
  if (filters_) return "";
  std::string what = "this kernel, or an emulator, does not filter system calls";
  if (options_.seccomp == Options::Seccomp::kOn) return what + ", and --seccomp on was given";
  fprintf(stderr, "%s: sessions run without a filter\n", what.c_str());
  return "";
}

std::string Server::Listen() {
  int last = std::max(options_.port_end, options_.port + 1);
  for (int port = options_.port; port < last; ++port) {
    Address address;
    std::string error = Resolve(options_.host, port, &address);
    if (!error.empty()) return error;
    if (gate_.open() && !options_.insecure && !address.IsLoopback()) {
      return "refused to listen on " + AddressText(options_.host, port) +
             " without a secret: whoever connects could run code here; give --secret-file FILE, or listen on loopback "
             "and reach it through ssh or adb (or --insecure, in a network where everybody may)";
    }
    listen_fd_ = socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    setsockopt(listen_fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listen_fd_, address.get(), address.length) == 0 && listen(listen_fd_, SOMAXCONN) == 0) {
      sockaddr_storage bound{};
      socklen_t length = sizeof(bound);
      getsockname(listen_fd_, reinterpret_cast<sockaddr*>(&bound), &length);
      port_ = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                                : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
      return "";
    }
    int reason = errno;
    close(listen_fd_);
    if (reason != EADDRINUSE || port + 1 == last) {
      return "cannot listen on " + AddressText(options_.host, port) + ": " + strerror(reason);
    }
  }
  return "no port to listen on";
}

void Server::Run() {
  while (!stopping_) {
    Poll();
    if (tracker_) tracker_->OnTick();
    AnswerAll();
    StopOverdueSessions();
    ReapSessions();
  }
  for (Handshake& handshake : handshakes_) close(handshake.fd);
  handshakes_.clear();
  std::list<Session> left = std::exchange(sessions_, {});
  for (const Session& session : left) {
    kill(session.pid, SIGKILL);
    waitpid(session.pid, nullptr, 0);
    Remove(session.folder_fd, session.folder);
  }
  AwaitRemovals();
  if (remove_work_dir_) RemoveFolderWhole(OpenFolder(work_dir_), work_dir_);
}

// Waits for the next event or the next deadline, and takes in what has arrived.
void Server::Poll() {
  std::vector<pollfd> fds{{wakeup[0], POLLIN, 0}};
  TimePoint wake = kNever;
  auto watch = [&](int fd, short events) { fds.push_back({fd, events, 0}); };
  watch(listen_fd_, POLLIN);
  if (tracker_) {
    if (tracker_->fd() >= 0) watch(tracker_->fd(), tracker_->PollEvents());
    wake = std::min(wake, tracker_->NextTick());
  }
  for (const Handshake& handshake : handshakes_) {
    watch(handshake.fd, handshake.waiting ? POLLRDHUP : POLLIN);
    if (handshake.waiting) continue;  // for a session to end, or for its client to leave
    wake = std::min(wake, handshake.deadline);
  }
  for (const Session& session : sessions_) {
    if (session.state != Session::kRunning) continue;  // SIGCHLD is on its way
    if (session.hang_up_deadline == kNever) watch(session.fd, POLLRDHUP);
    wake = std::min({wake, session.deadline, session.hang_up_deadline});
  }
  int timeout_ms = -1;
  if (wake != kNever) {
    auto left = std::chrono::ceil<std::chrono::milliseconds>(wake - Clock::now()).count();
    timeout_ms = static_cast<int>(std::clamp<long long>(left, 0, 3600 * 1000));
  }
  if (poll(fds.data(), fds.size(), timeout_ms) <= 0) return;

  auto ready = [&](int fd) {
    return std::any_of(fds.begin(), fds.end(), [fd](const pollfd& p) { return p.fd == fd && p.revents; });
  };
  if (ready(wakeup[0])) ReadSignals();
  for (Session& session : sessions_) {
    if (session.hang_up_deadline == kNever && ready(session.fd)) session.hang_up_deadline = After(kHangUpS);
  }
  for (Handshake& handshake : handshakes_) {
    if (!ready(handshake.fd)) continue;
    if (handshake.waiting) {
      handshake.gone = true;
    } else {
      Receive(handshake);
    }
  }
  // Last, since both may open descriptors under numbers that poll() has just reported on.
  if (tracker_ && tracker_->fd() >= 0 && ready(tracker_->fd())) tracker_->OnReady();
  if (ready(listen_fd_)) Accept();
}

void Server::ReadSignals() {
  char byte;
  while (read(wakeup[0], &byte, 1) == 1) {
    if (byte == SIGTERM || byte == SIGINT) stopping_ = true;
  }
}

void Server::Accept() {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  int fd = accept4(listen_fd_, reinterpret_cast<sockaddr*>(&address), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  int on = 1, idle_s = 60, interval_s = 20;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  // A client that lost power or network says nothing; without probes its session would last for ever.
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
  MakeRoom();
  handshakes_.push_back({fd, PeerText(address)});
}

// A client says what it wants within milliseconds: when there are too many at it, the one that has taken longest goes.
void Server::MakeRoom() {
  auto unfinished = [](const Handshake& handshake) { return !handshake.waiting; };
  if (std::count_if(handshakes_.begin(), handshakes_.end(), unfinished) < static_cast<long>(kMaxHandshakes)) return;
  auto oldest = std::find_if(handshakes_.begin(), handshakes_.end(), unfinished);
  close(oldest->fd);
  handshakes_.erase(oldest);
}

void Server::Receive(Handshake& handshake) {
  char chunk[kMaxKeyBytes];
  while (handshake.Sane() && !handshake.Complete()) {
    ssize_t count = recv(handshake.fd, chunk, std::min(handshake.BytesMissing(), sizeof(chunk)), 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count <= 0) {
      handshake.deadline = Clock::now();  // gone
      return;
    }
    handshake.received.append(chunk, count);
  }
}

// Whether its client has not said in time what it wants. On a busy machine it is this process that may come too late.
bool Server::TooLate(Handshake& handshake) {
  if (handshake.Complete() || Clock::now() < handshake.deadline) return false;
  Receive(handshake);
  return !handshake.Complete();
}

// A knock comes before the connection that it is for, so that one pass takes in all that has changed.
void Server::AnswerAll() {
  for (auto handshake = handshakes_.begin(); handshake != handshakes_.end();) {
    bool over = handshake->Knocks() ? AnswerKnock(*handshake) : Answer(*handshake);
    handshake = over ? handshakes_.erase(handshake) : std::next(handshake);
  }
}

// Returns true once the proof is over: refused, given up, or right.
bool Server::AnswerKnock(Handshake& handshake) {
  Knock& knock = handshake.knock;
  if (!handshake.Complete() && !TooLate(handshake)) return false;
  if (!handshake.Complete()) {
    fprintf(stderr, "%s: refused, it did not prove in time that it knows the secret\n", handshake.peer.c_str());
  } else if (knock.state == Knock::kArrived) {
    handshake.deadline = After(kProofS);
    SendWhole(handshake.fd, gate_.Greet(&knock));
    if (!gate_.open()) return false;
  } else if (knock.state == Knock::kGreeted) {
    std::string welcome = gate_.Welcome(&knock, handshake.received, EndsOf(handshake.fd));
    if (!welcome.empty() && SendWhole(handshake.fd, welcome)) return false;
    // Who does not know the secret is told nothing.
    fprintf(stderr, "%s: refused, it does not know the secret\n", handshake.peer.c_str());
  } else {
    Admit(handshake);
  }
  close(handshake.fd);
  return true;
}

// The connection that a finished proof is for, if it is right.
void Server::Admit(const Handshake& proven) {
  std::string reason = "no session came with it";
  for (Handshake& handshake : handshakes_) {
    if (handshake.fd != proven.knock.session_fd) continue;
    handshake.admitted =
        gate_.Admits(proven.knock, proven.received, EndsOf(handshake.fd), handshake.WholeKey(), &reason);
    if (handshake.admitted) return;
  }
  fprintf(stderr, "%s: refused, %s\n", proven.peer.c_str(), reason.c_str());
}

// Whether a client is proving that this connection may have a session. The first one that comes is put to it.
bool Server::Proves(Handshake& handshake, const std::string& session_name) {
  for (Handshake& other : handshakes_) {
    if (other.knock.state != Knock::kWelcomed || session_name != other.knock.Name()) continue;
    if (other.knock.session_fd < 0) {
      other.knock.session_fd = handshake.fd;
      SendWhole(other.fd, EndsOf(handshake.fd).client);
    }
    return other.knock.session_fd == handshake.fd;
  }
  return false;
}

// Returns true once the handshake is over: refused, given up, or a session.
bool Server::Answer(Handshake& handshake) {
  if (handshake.gone) {
    close(handshake.fd);
    return true;
  }
  if (!handshake.Sane() || TooLate(handshake)) {
    fprintf(stderr, "%s: not a TVM RPC client, or too slow\n", handshake.peer.c_str());
    close(handshake.fd);
    return true;
  }
  if (!handshake.Complete()) return false;

  // "client:KEY" and, after spaces, options. Behind a tracker only the key it has just given away opens the door.
  std::istringstream words(handshake.WholeKey());
  std::string name;
  words >> name;
  std::vector<std::string> client_options;
  for (std::string word; words >> word;) client_options.push_back(word);
  // Who does not know the secret is told nothing, not even whether the key is right.
  if (!handshake.admitted && !gate_.open()) {
    if (Proves(handshake, Option(client_options, "-session="))) return false;
    fprintf(stderr, "%s: refused, it does not know the secret\n", handshake.peer.c_str());
    close(handshake.fd);
    return true;
  }
  bool rehearsal = IsRehearsal(client_options);
  bool offered = rehearsal || !options_.has_tracker() || (tracker_ && !tracker_->match_key().empty());
  std::string key = rehearsal ? "" : tracker_ ? tracker_->match_key() : options_.key;
  if (!offered || name != "client:" + key) {
    fprintf(stderr, "%s: refused, its key does not match\n", handshake.peer.c_str());
    SendWhole(handshake.fd, WireInt(kRPCMismatch));
    close(handshake.fd);
    return true;
  }
  if (sessions_.size() >= static_cast<size_t>(options_.max_sessions)) {
    auto waiting = std::count_if(handshakes_.begin(), handshakes_.end(), [](auto& other) { return other.waiting; });
    if (!handshake.waiting && waiting >= static_cast<long>(kMaxWaiting)) {
      fprintf(stderr, "%s: refused, %zu clients wait for a session already\n", handshake.peer.c_str(), kMaxWaiting);
      close(handshake.fd);
      return true;
    }
    handshake.waiting = true;
    return false;
  }

  std::string server_key = "server:" + options_.key;
  if (SendWhole(handshake.fd, WireInt(kRPCSuccess) + WireInt(server_key.size()) + server_key)) {
    if (rehearsal) {
      Rehearse(handshake);
      return true;
    }
    StartSession(handshake, SessionTimeout(client_options, options_.session_timeout_s));
  } else {
    close(handshake.fd);
  }
  return true;
}

// Only an emulated core's owner may ask for it, who comes first: what it runs could end this process, and others wait.
bool Server::IsRehearsal(const std::vector<std::string>& client_options) const {
  bool asked = std::find(client_options.begin(), client_options.end(), "-rehearsal") != client_options.end();
  return asked && !options_.cost_socket.empty() && !rehearsed_;
}

void Server::Rehearse(const Handshake& handshake) {
  rehearsed_ = true;
  std::string folder = work_dir_ + "/rehearsal-XXXXXX";
  if (mkdtemp(folder.data())) {
    SetBlocking(handshake.fd, true);
    timeval limit{kRehearsalS, 0};
    setsockopt(handshake.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    RehearseSession(handshake.fd, {folder, options_.limits, options_.cost_socket, options_.modelled_cores, Keeper()});
    RemoveFolderWhole(OpenFolder(folder), folder);
  }
  close(handshake.fd);
  JoinTracker();
}

void Server::StartSession(const Handshake& handshake, double timeout_s) {
  rehearsed_ = true;  // or it is too late for it
  std::string folder = work_dir_ + "/session-XXXXXX";
  pid_t parent = getpid();
  int folder_fd = mkdtemp(folder.data()) ? OpenFolder(folder) : -1;
  PreferForOom(true);
  pid_t pid = folder_fd >= 0 ? fork() : -1;
  if (pid == 0) BecomeSession(handshake.fd, folder, folder_fd, parent);
  int failure = errno;
  PreferForOom(false);
  if (pid < 0) {
    std::string reason = strerror(failure);
    if (folder_fd >= 0) Remove(folder_fd, folder);
    fprintf(stderr, "%s: cannot start a session: %s\n", handshake.peer.c_str(), reason.c_str());
    SendSessionError(handshake.fd, "the device cannot start a session: " + reason);
    close(handshake.fd);
    if (tracker_) tracker_->Offer();  // the tracker has given the key away
    return;
  }
  Session session{pid, handshake.fd, handshake.peer, folder, folder_fd};
  session.timeout_s = timeout_s;
  if (timeout_s > 0) session.deadline = After(timeout_s);
  sessions_.push_back(session);
  if (tracker_) tracker_->Withdraw();
  fprintf(stderr, "%s: session %d started%s\n", handshake.peer.c_str(), pid,
          timeout_s > 0 ? (", at most " + Number(timeout_s) + " s").c_str() : "");
}

void Server::BecomeSession(int fd, const std::string& folder, int folder_fd, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);  // the parent died before prctl
  for (int signal_number : {SIGTERM, SIGINT, SIGCHLD}) signal(signal_number, SIG_DFL);
  CloseServersFiles(fd);
  LeaveTerminal();
  dup2(STDERR_FILENO, STDOUT_FILENO);  // stdout carries the one line that says where the server listens
  gate_.Forget();
  SetBlocking(fd, true);
  if (chdir(folder.c_str()) != 0) _exit(1);
  if (filters_) ServeConfined(fd, folder, folder_fd);
  close(folder_fd);
  if (options_.cost_socket.empty()) Confine(options_.limits);  // under an emulator it would bind the emulator
  ServeSession(fd, {folder, options_.limits, options_.cost_socket, options_.modelled_cores, Keeper()});
}

// A connection ends for its client when nobody holds it any more: other clients' must not be held by a session. Closing
// "everything above 2" instead would close descriptors of the emulator under qemu-user.
void Server::CloseServersFiles(int kept) {
  for (int other : {listen_fd_, wakeup[0], wakeup[1]}) close(other);
  if (tracker_ && tracker_->fd() >= 0) close(tracker_->fd());
  for (const Session& session : sessions_) {
    close(session.fd);
    close(session.folder_fd);
  }
  for (const Handshake& handshake : handshakes_) {
    if (handshake.fd != kept) close(handshake.fd);
  }
}

// Where the kernel filters system calls, the session reads files alone, and its keeper writes them.
void Server::ServeConfined(int fd, const std::string& folder, int folder_fd) {
  Keeper keeper = StartKeeper(folder_fd, folder, options_.limits.disk_bytes);
  if (!keeper.there()) _exit(1);
  CloseAllBut({fd, keeper.fd()});
  Confine(options_.limits);
  int listener = SuperviseThreads();
  if (listener >= 0) keeper.Supervise(listener);
  if (!ConfineFiles(folder) || !FilterSystemCalls()) _exit(1);
  ServeSession(fd, {folder, options_.limits, options_.cost_socket, options_.modelled_cores, keeper});
}

void Server::StopOverdueSessions() {
  TimePoint now = Clock::now();
  for (Session& session : sessions_) {
    if (session.state != Session::kRunning || now < std::min(session.deadline, session.hang_up_deadline)) continue;
    session.state = now >= session.deadline ? Session::kTimedOut : Session::kAbandoned;
    kill(session.pid, SIGKILL);
  }
}

// Sessions, keepers that have outlived theirs, and who removes what sessions left.
void Server::ReapSessions() {
  int status = 0;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    auto session = std::find_if(sessions_.begin(), sessions_.end(), [pid](auto& other) { return other.pid == pid; });
    if (session == sessions_.end()) continue;
    Session ended = *session;
    sessions_.erase(session);
    CloseSession(ended, status);
    if (tracker_) tracker_->Offer();
  }
}

void Server::CloseSession(Session& session, int status) {
  double lasted_s = std::chrono::duration<double>(Clock::now() - session.started).count();
  std::string how = "ended";
  if (session.state == Session::kAbandoned) {
    how = "killed, its client had left,";
  } else if (session.state == Session::kTimedOut) {
    how = "killed at its time limit";
    // The wording that TVM's client turns into RPCSessionTimeoutError.
    SendSessionError(session.fd, "RPCSessionTimeoutError: Your " + Number(session.timeout_s) +
                                     "s session has expired, try to increase the \"session_timeout\" value.");
  } else if (WIFSIGNALED(status)) {
    how = "killed by signal " + std::to_string(WTERMSIG(status)) + " (" + strsignal(WTERMSIG(status)) + ")";
    SendSessionError(session.fd, "the session's process on the device was " + how);
  } else if (WEXITSTATUS(status) != 0) {
    how = "failed";
  }
  fprintf(stderr, "%s: session %d %s after %.1f s\n", session.peer.c_str(), session.pid, how.c_str(), lasted_s);
  close(session.fd);
  Remove(session.folder_fd, session.folder);
}

// The session's keeper removes its folder; where there is none, this does. A folder can be made to take long, and the
// server waits for nobody: then a process of its own removes it.
void Server::Remove(int folder_fd, const std::string& folder) {
  if (filters_) {
    close(folder_fd);
    return;
  }
  if (RemoveFolderQuickly(folder_fd, folder)) return;
  if (fork() == 0) {
    CloseServersFiles(-1);
    RemoveFolderWhole(folder_fd, folder);
    _exit(0);
  }
  close(folder_fd);
}

void Server::AwaitRemovals() {
  TimePoint deadline = After(kRemovalS);
  while (waitpid(-1, nullptr, WNOHANG) >= 0 && Clock::now() < deadline) usleep(1000);
}

}  // namespace

int main(int argc, char** argv) {
  Server server(ParseOptions(argc, argv));
  BeUnseen();
  std::string error = server.Open();
  LeaveEnvironment();
  if (!error.empty()) {
    fprintf(stderr, "tvm_shufflenet_server: %s\n", error.c_str());
    return 1;
  }
  server.Run();
  _exit(0);  // no destructors of TVM's libraries: nothing is left to save
}

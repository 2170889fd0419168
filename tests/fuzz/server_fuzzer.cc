// The device server's own parsers under libFuzzer and AddressSanitizer: what an unknown client says before it has a
// session, what a tracker answers, options behind a key, and files that a session is given.
//
// The first byte chooses. Nothing is stubbed: the server listens on loopback, in a thread of its own, with a secret.

#include <memory>
#include <thread>

#define main server_main
#include "server.cc"
#undef main

#include "fill_digest.h"
#include "sha256.h"

namespace {

constexpr const char* kSecret = "correct horse battery staple";
constexpr const char* kKey = "a key that no client has";  // who proves to know the secret is refused by it

int Listener(int* port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  bind(fd, reinterpret_cast<sockaddr*>(&address), length);
  listen(fd, 16);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  *port = ntohs(address.sin_port);
  return fd;
}

int server_port = 0;

void StartServer() {
  close(Listener(&server_port));  // a port that was free a moment ago
  Options options;
  options.port = server_port;
  options.secret = kSecret;
  options.key = kKey;
  options.allow_root = true;
  static Server& server = *new Server(options);  // its thread outlives exit()'s destructors
  std::string error = server.Open();
  if (!error.empty()) {
    fprintf(stderr, "%s\n", error.c_str());
    abort();
  }
  std::thread([] { server.Run(); }).detach();
}

// A call again and again until no signal interrupts it: libFuzzer's watch over slow inputs sends one every few seconds.
template <typename Call>
ssize_t Unhindered(Call call) {
  ssize_t done;
  do done = call();
  while (done < 0 && errno == EINTR);
  return done;
}

// The server hangs up first, and its system keeps the pair of ports busy for a minute: one client address has too few.
void CallFromElsewhere(int fd) {
  static uint32_t calls = 0;
  sockaddr_in source{};
  source.sin_family = AF_INET;
  source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + ((++calls & 0xffff) << 8));
  bind(fd, reinterpret_cast<sockaddr*>(&source), sizeof(source));
}

int Connected() {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(server_port);
  timeval limit{5, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  CallFromElsewhere(fd);
  // On Linux, a second call waits for what the first has begun.
  if (Unhindered([&] { return connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)); }) != 0) {
    perror("connect");
    abort();
  }
  return fd;
}

void Say(int fd, const std::string& bytes) {
  Unhindered([&] { return send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL); });
}

// What the server says, at most so many bytes, until it hangs up: it must do either, and soon.
std::string Heard(int fd, size_t most) {
  std::string said;
  char chunk[4096];
  ssize_t count = 1;
  while (said.size() < most && count > 0) {
    count = Unhindered([&] { return recv(fd, chunk, std::min(sizeof(chunk), most - said.size()), 0); });
    if (count > 0) said.append(chunk, count);
  }
  if (count < 0 && errno != ECONNRESET) abort();
  return said;
}

// What the server says to `bytes` until it hangs up.
std::string Exchange(const std::string& bytes) {
  int fd = Connected();
  Say(fd, bytes);
  shutdown(fd, SHUT_WR);
  std::string said = Heard(fd, 1 << 16);
  close(fd);
  return said;
}

constexpr size_t kGreetingBytes = 2 * sizeof(int32_t) + 16, kWelcomeBytes = 2 * 18 + 32;

void Stranger(const std::string& bytes) {
  std::string said = Exchange(bytes);
  bool asked = bytes.size() >= sizeof(int32_t) && ReadWireInt(bytes.data()) == kKnockMagic;
  if (said.size() > (asked ? kGreetingBytes : 0)) abort();  // nothing is said to who proves nothing
}

// Somebody who knows the secret: proves it, opens a second connection with strange `words` in its key, says how that one
// is connected, and, where `last` is not empty, something else in place of the second proof.
void Friend(const std::string& words, const std::string& last) {
  if (words.find("-session=") != std::string::npos) return;  // it would be another's
  static const Hmac mac(kSecret);
  const std::string own_nonce(16, 'c');
  int knock = Connected();
  Say(knock, WireInt(kKnockMagic));
  std::string nonces = Heard(knock, kGreetingBytes).substr(2 * sizeof(int32_t)) + own_nonce;
  Say(knock, own_nonce + mac.Of("TVSP2C" + nonces));
  if (Heard(knock, kWelcomeBytes).size() != kWelcomeBytes) abort();
  std::string key = "client:" + words + " -session=" + Hex(nonces.substr(0, 16));
  if (key.size() <= kMaxKeyBytes) {
    int session = Connected();
    Say(session, WireInt(kRPCMagic) + WireInt(key.size()) + key);
    Ends ends = EndsOf(session);  // from this side
    if (Heard(knock, ends.server.size()) != ends.server) abort();
    std::string proof = "d" + ends.client + ends.server;
    Say(knock, last.empty() ? proof + mac.Of("TVSP2D" + nonces + proof + key) : last);
    shutdown(knock, SHUT_WR);
    std::string said = Heard(session, 1 << 16);
    // Who is let in is told that its key is wrong, nobody else is told anything.
    if (said != (last.empty() ? WireInt(kRPCMismatch) : "")) abort();
    close(session);
  }
  close(knock);
}

void ClientOptions(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  double seconds = SessionTimeout(words, 60);
  if (!(seconds > 0 && seconds <= 60)) abort();
  Gate gate(kSecret);
  Knock knock;
  gate.Greet(&knock);
  std::string answer = text, reason;
  answer.resize(1024, '\0');
  if (!gate.Welcome(&knock, answer, {}).empty() || gate.Admits(knock, answer, {}, text, &reason)) abort();
}

// A tracker that says `bytes`, in pieces.
void Tracker(const std::string& bytes) {
  static int port = 0;
  static const int listener = Listener(&port);
  TrackerLink link("127.0.0.1", port, "board", "", 9090);
  int fd = static_cast<int>(Unhindered([] { return accept(listener, nullptr, nullptr); }));
  linger at_once{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  link.OnReady();
  size_t half = bytes.size() / 2;
  for (const std::string& piece : {bytes.substr(0, half), bytes.substr(half)}) {
    SendWhole(fd, piece);
    for (int turn = 0; turn < 4 && link.fd() >= 0; ++turn) link.OnReady();
    link.Offer();
  }
  close(fd);
  for (int turn = 0; turn < 8 && link.fd() >= 0; ++turn) link.OnReady();
  if (link.fd() >= 0) close(link.fd());
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  if (!freopen("/dev/null", "w", stdout)) return 1;
  StartServer();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0: Stranger(rest); break;
    case 1: Friend(rest, ""); break;
    case 2: ClientOptions(rest); break;
    case 3: Tracker(rest); break;
    case 4: Friend("", rest); break;
  }
  return 0;
}

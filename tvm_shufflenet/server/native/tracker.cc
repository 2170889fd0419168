#include "tracker.h"

#include <sys/random.h>

#include <cerrno>
#include <cstdio>

namespace {

// From tvm/rpc/base.py.
constexpr int32_t kTrackerMagic = 0x2f271;
constexpr int kPut = 3, kUpdateInfo = 5, kGetPendingMatchKeys = 7;
constexpr int32_t kMaxMessageBytes = 1 << 20;

constexpr double kRetryS = 1, kPingS = 2, kAnswerS = 10;
// A match key that was given away but not used for so many pings is replaced: its client is gone.
constexpr int kPingsToReplaceKey = 4;

std::string RandomHex() {
  uint64_t bits = 0;
  if (getrandom(&bits, sizeof(bits), 0) != sizeof(bits)) bits = Clock::now().time_since_epoch().count();
  char text[17];
  snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(bits));
  return text;
}

// The keys and addresses that go in here were checked to need no escapes when the command line was read.
std::string Quoted(const std::string& text) { return '"' + text + '"'; }

}  // namespace

TrackerLink::TrackerLink(std::string host, int port, std::string key, std::string custom_addr, int listen_port)
    : host_(std::move(host)),
      key_(std::move(key)),
      custom_addr_(custom_addr.empty() ? "null" : Quoted(custom_addr)),
      port_(port),
      listen_port_(listen_port) {
  Offer();
  Connect();
}

void TrackerLink::Offer() {
  match_key_ = key_ + ":" + RandomHex();
  pings_without_key_ = 0;
  if (state_ == State::kUp) Put();
}

void TrackerLink::Connect() {
  Address address;
  std::string error = Resolve(host_, port_, &address);
  if (!error.empty()) return Drop(error);
  fd_ = socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (connect(fd_, address.get(), address.length) != 0 && errno != EINPROGRESS) return Drop(strerror(errno));
  state_ = State::kConnecting;
  next_tick_ = After(kAnswerS);
}

void TrackerLink::Drop(const std::string& reason) {
  if (!complained_) {
    fprintf(stderr, "tracker %s: %s; trying again every %g s\n", AddressText(host_, port_).c_str(), reason.c_str(),
            kRetryS);
  }
  complained_ = true;
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  state_ = State::kDown;
  received_.clear();
  expected_.clear();
  next_tick_ = After(kRetryS);
}

void TrackerLink::Request(const std::string& json, Reply expected) {
  if (state_ != State::kUp) return;  // dropped a moment ago: everything is said again after the next connect
  if (!SendWhole(fd_, WireInt(json.size()) + json)) return Drop("connection lost");
  expected_.push_back(expected);
  next_tick_ = After(kAnswerS);
}

void TrackerLink::Register() {
  std::string address = "[" + custom_addr_ + ", " + std::to_string(listen_port_) + "]";
  std::string info = "{\"key\": " + Quoted("server:" + key_) + ", \"addr\": " + address + "}";
  Request("[" + std::to_string(kUpdateInfo) + ", " + info + "]", Reply::kDone);
  if (!match_key_.empty()) Put();
}

void TrackerLink::Put() {
  std::string offer = "[" + std::to_string(listen_port_) + ", " + Quoted(match_key_) + "]";
  Request("[" + std::to_string(kPut) + ", " + Quoted(key_) + ", " + offer + ", " + custom_addr_ + "]", Reply::kDone);
}

void TrackerLink::OnTick() {
  if (Clock::now() < next_tick_) return;
  if (state_ == State::kDown) return Connect();
  if (state_ != State::kUp || !expected_.empty()) return Drop("no answer");
  next_tick_ = After(kPingS);
  if (!match_key_.empty()) Request("[" + std::to_string(kGetPendingMatchKeys) + "]", Reply::kPendingKeys);
}

void TrackerLink::OnReady() {
  if (state_ == State::kConnecting) {
    int error = 0;
    socklen_t length = sizeof(error);
    getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) return Drop(strerror(error));
    if (!SendWhole(fd_, WireInt(kTrackerMagic))) return Drop("connection lost");
    state_ = State::kGreeting;
    return;
  }
  char chunk[4096];
  ssize_t count = recv(fd_, chunk, sizeof(chunk), MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) return Drop("connection lost");
  received_.append(chunk, count);
  while (fd_ >= 0 && received_.size() >= sizeof(int32_t)) {
    int32_t number = ReadWireInt(received_.data());
    if (state_ == State::kGreeting) {
      if (number != kTrackerMagic) return Drop("not a TVM RPC tracker");
      received_.erase(0, sizeof(int32_t));
      state_ = State::kUp;
      complained_ = false;
      Register();
      continue;
    }
    if (number <= 0 || number > kMaxMessageBytes) return Drop("sent a message of " + std::to_string(number) + " bytes");
    if (received_.size() < sizeof(int32_t) + number) return;
    std::string json = received_.substr(sizeof(int32_t), number);
    received_.erase(0, sizeof(int32_t) + number);
    OnReply(json);
  }
}

void TrackerLink::OnReply(const std::string& json) {
  if (expected_.empty()) return Drop("sent an answer to nothing");
  Reply expected = expected_.front();
  expected_.pop_front();
  next_tick_ = After(expected_.empty() ? kPingS : kAnswerS);
  if (expected == Reply::kPendingKeys) return OnPendingKeys(json);
  if (json != "0") return Drop("refused this device: " + json);
}

void TrackerLink::OnPendingKeys(const std::string& json) {
  if (match_key_.empty()) return;
  bool pending = json.find(Quoted(match_key_)) != std::string::npos;
  pings_without_key_ = pending ? 0 : pings_without_key_ + 1;
  if (pings_without_key_ >= kPingsToReplaceKey) {
    fprintf(stderr, "the tracker gave this device to a client that did not come: offering it again\n");
    Offer();
  }
}

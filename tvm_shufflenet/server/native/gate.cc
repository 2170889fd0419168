#include "gate.h"

#include <sys/random.h>

#include <cstdlib>

namespace {

constexpr size_t kNonceBytes = 16, kMacBytes = 32, kAddressBytes = 18;
constexpr size_t kFirstAnswerBytes = kNonceBytes + kMacBytes;
constexpr size_t kLastAnswerBytes = 1 + 2 * kAddressBytes + kMacBytes;
constexpr char kDirect = 'd', kForwarded = 'f';

std::string Nonce() {
  std::string bytes(kNonceBytes, '\0');
  if (getrandom(bytes.data(), kNonceBytes, 0) != static_cast<ssize_t>(kNonceBytes)) abort();  // there are no secrets
  return bytes;
}

std::string Tail(const std::string& text, size_t bytes) { return text.substr(text.size() - bytes); }

}  // namespace

std::string ProofAddress(const sockaddr_storage& address) {
  std::string bytes(kAddressBytes, '\0');
  if (address.ss_family == AF_INET6) {
    auto* in6 = reinterpret_cast<const sockaddr_in6*>(&address);
    memcpy(bytes.data(), &in6->sin6_addr, 16);
    memcpy(bytes.data() + 16, &in6->sin6_port, 2);
  } else {
    auto* in = reinterpret_cast<const sockaddr_in*>(&address);
    bytes[10] = bytes[11] = '\xff';
    memcpy(bytes.data() + 12, &in->sin_addr, 4);
    memcpy(bytes.data() + 16, &in->sin_port, 2);
  }
  return bytes;
}

Ends EndsOf(int fd) {
  sockaddr_storage own{}, other{};
  socklen_t length = sizeof(own);
  getsockname(fd, reinterpret_cast<sockaddr*>(&own), &length);
  length = sizeof(other);
  getpeername(fd, reinterpret_cast<sockaddr*>(&other), &length);
  return {ProofAddress(own), ProofAddress(other)};
}

std::string Gate::Greet(Knock* knock) const {
  if (open_) return WireInt(kOpenMagic) + WireInt(kProofVersion);
  knock->state = Knock::kGreeted;
  knock->bytes_due += kFirstAnswerBytes;
  knock->server_nonce = Nonce();
  return WireInt(kGreetingMagic) + WireInt(kProofVersion) + knock->server_nonce;
}

std::string Gate::Welcome(Knock* knock, const std::string& received, const Ends& ends) const {
  std::string said = Tail(received, kFirstAnswerBytes);
  std::string client_nonce = said.substr(0, kNonceBytes), nonces = knock->server_nonce + client_nonce;
  if (!EqualInConstantTime(said.substr(kNonceBytes), mac_.Of("TVSP2C" + nonces))) return "";
  knock->state = Knock::kWelcomed;
  knock->bytes_due += kLastAnswerBytes;
  knock->client_nonce = client_nonce;
  std::string addresses = ends.server + ends.client;
  return addresses + mac_.Of("TVSP2S" + nonces + addresses);
}

bool Gate::Admits(const Knock& knock, const std::string& received, const Ends& ends, const std::string& key,
                  std::string* reason) const {
  std::string said = Tail(received, kLastAnswerBytes), words = said.substr(0, said.size() - kMacBytes);
  std::string nonces = knock.server_nonce + knock.client_nonce;
  if (!EqualInConstantTime(said.substr(words.size()), mac_.Of("TVSP2D" + nonces + words + key))) {
    *reason = "it does not know the secret";
    return false;
  }
  if (words[0] == kForwarded || (words[0] == kDirect && words.substr(1) == ends.server + ends.client)) return true;
  *reason = "its proof is for another connection";
  return false;
}

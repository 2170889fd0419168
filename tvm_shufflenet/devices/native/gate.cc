#include "gate.h"

#include <sys/random.h>

#include <cstdio>
#include <cstdlib>
#include <iterator>

#include "sha256.h"

namespace {

constexpr double kChallengeS = 5;
constexpr size_t kRandomBytes = 16, kDeadlineBytes = 8, kSignatureBytes = 16;
constexpr size_t kChallengeChars = 2 * (kRandomBytes + kDeadlineBytes + kSignatureBytes);

std::string Random(size_t count) {
  std::string bytes(count, '\0');
  if (getrandom(bytes.data(), count, 0) != static_cast<ssize_t>(count)) abort();  // without it there are no secrets
  return bytes;
}

std::string DeadlineText(TimePoint deadline) {
  char text[2 * kDeadlineBytes + 1];
  auto ticks = static_cast<unsigned long long>(deadline.time_since_epoch().count());
  snprintf(text, sizeof(text), "%016llx", ticks);
  return text;
}

}  // namespace

Gate::Gate(std::string secret) : secret_(std::move(secret)), own_key_(Random(32)) {}

std::string Gate::Signature(const std::string& challenge) const {
  return Hex(HmacSha256(own_key_, challenge).substr(0, kSignatureBytes));
}

std::string Gate::Challenge() const {
  std::string text = Hex(Random(kRandomBytes)) + DeadlineText(After(kChallengeS));
  return text + Signature(text);
}

bool Gate::Admits(const std::string& answer) {
  size_t colon = answer.find(':');
  if (colon != kChallengeChars) return false;
  std::string challenge = answer.substr(0, colon), unsigned_part = challenge.substr(0, colon - 2 * kSignatureBytes);
  if (!EqualInConstantTime(challenge.substr(unsigned_part.size()), Signature(unsigned_part))) return false;
  if (!EqualInConstantTime(answer.substr(colon + 1), Hex(HmacSha256(secret_, challenge)))) return false;
  // Signed, so the deadline is one of ours: 16 hexadecimal digits, which order as the numbers do.
  TimePoint now = Clock::now();
  if (challenge.substr(2 * kRandomBytes, 2 * kDeadlineBytes) < DeadlineText(now)) return false;
  for (auto used = used_.begin(); used != used_.end();) used = used->second < now ? used_.erase(used) : std::next(used);
  return used_.emplace(challenge, After(kChallengeS)).second;
}

// Who may have a session, where the server asks for a shared secret.
//
// A client asks for a challenge on a connection of its own, which the server then closes; TVM's client, whose handshake
// has no room for an answer, sends the proof as an option behind its key. The secret itself is never sent, a proof
// serves once, and what the server keeps of clients that have not proved anything is nothing: a challenge carries the
// time it ends and the server's own signature.
#pragma once

#include <map>
#include <string>

#include "net.h"

// What a client sends in place of TVM's magic number to be given a challenge: "TVSC".
constexpr int32_t kChallengeMagic = 0x43535654;

class Gate {
 public:
  // An empty secret lets everybody in.
  explicit Gate(std::string secret);

  bool open() const { return secret_.empty(); }

  // Hexadecimal text.
  std::string Challenge() const;

  // Whether this is the answer, by someone who knows the secret, to a challenge given a moment ago: CHALLENGE:PROOF,
  // where the proof is the HMAC-SHA256 of the challenge's text in hexadecimal.
  bool Admits(const std::string& answer);

 private:
  std::string Signature(const std::string& challenge) const;

  const std::string secret_, own_key_;
  std::map<std::string, TimePoint> used_;  // challenges that were answered rightly, until they end by themselves
};

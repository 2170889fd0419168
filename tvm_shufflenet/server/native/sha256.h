// SHA-256 (FIPS 180-4) and HMAC (RFC 2104), for the proof that a client knows the shared secret.
#pragma once

#include <array>
#include <cstdint>
#include <string>

// 32 bytes.
std::string Sha256(const std::string& message);

// HMAC-SHA256 under one key. It keeps what the hash has become after the key, not the key.
class Hmac {
 public:
  explicit Hmac(const std::string& key);

  // 32 bytes.
  std::string Of(const std::string& message) const;

  // After this it computes something else: for a process that is not to know the key.
  void Forget();

 private:
  std::array<uint32_t, 8> inner_, outer_;
};

// Overwrites the text, and leaves it empty.
void Wipe(std::string* text);

std::string Hex(const std::string& bytes);

// Takes as long for texts that differ early as for those that differ late, which an attacker could time.
bool EqualInConstantTime(const std::string& a, const std::string& b);

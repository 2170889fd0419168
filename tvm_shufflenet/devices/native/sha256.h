// SHA-256 (FIPS 180-4) and HMAC (RFC 2104), for the proof that a client knows the shared secret.
#pragma once

#include <string>

// 32 bytes each.
std::string Sha256(const std::string& message);
std::string HmacSha256(const std::string& key, const std::string& message);

std::string Hex(const std::string& bytes);

// Takes as long for texts that differ early as for those that differ late, which an attacker could time.
bool EqualInConstantTime(const std::string& a, const std::string& b);

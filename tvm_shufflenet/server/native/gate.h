// Who may have a session, where the server asks for a shared secret.
//
// TVM's client has no room for a proof in its handshake: it says its key and waits. So a client proves itself on a
// connection of its own, the knock, beside the one that is to become the session:
//
//   client                                            server
//   kKnockMagic                                   ->
//                                                 <-  kGreetingMagic, version, nonce S (16 bytes)
//   nonce C (16), MAC("TVSP2C" S C)               ->  not right: closed without a word
//                                                 <-  address of the server, of the client, MAC("TVSP2S" S C both)
//   (the other connection: "client:KEY -session=S ...")
//                                                 <-  address that this one came from
//   mode, address it asked for, address it came   ->  right: that connection, and no other, is let in
//   from, MAC("TVSP2D" S C mode both its whole key)
//
// Addresses are 18 bytes: IPv6, into which IPv4 is mapped, and the port, all in network order. MACs are HMAC-SHA256 under
// the secret, 32 bytes. In mode 'd', direct, both addresses are to be those that the server sees: who passes a proof on
// from elsewhere has others. In mode 'f' the client says that it comes through a forwarder that it trusts (ssh, adb).
// Nothing is kept: a nonce ends with its knock, which ends soon.
#pragma once

#include <string>

#include "net.h"
#include "sha256.h"

constexpr int32_t kKnockMagic = 0x43535654;     // "TVSC"
constexpr int32_t kGreetingMagic = 0x50535654;  // "TVSP"
constexpr int32_t kOpenMagic = 0x4f535654;      // "TVSO": in its place, where no secret is asked for
constexpr int32_t kProofVersion = 2;
constexpr double kProofS = 5;  // from the greeting to the end of the proof

// Both ends of a connection, as this machine sees them and proofs name them.
struct Ends {
  std::string server, client;
};

std::string ProofAddress(const sockaddr_storage& address);
Ends EndsOf(int fd);

// A client that is proving itself.
struct Knock {
  enum { kArrived, kGreeted, kWelcomed } state = kArrived;
  size_t bytes_due = sizeof(kKnockMagic);  // that it has to have said for the next state, from the first
  std::string server_nonce = {}, client_nonce = {};
  int session_fd = -1;  // the connection that it is to prove, once that has come

  // What names it in the option -session= of that connection.
  std::string Name() const { return Hex(server_nonce); }
};

class Gate {
 public:
  // An empty secret lets everybody in.
  explicit Gate(const std::string& secret) : open_(secret.empty()), mac_(secret) {}

  bool open() const { return open_; }

  // What the server says to a client that has just knocked.
  std::string Greet(Knock* knock) const;

  // What it says to one whose first answer, the last of what was `received`, is right; otherwise nothing.
  std::string Welcome(Knock* knock, const std::string& received, const Ends& ends) const;

  // Whether the second answer, the last of what was `received`, lets in the connection between `ends` whose whole key is
  // `key`. Where it does not, `reason` is why.
  bool Admits(const Knock& knock, const std::string& received, const Ends& ends, const std::string& key,
              std::string* reason) const;

  // For the process of a session, which is not to know the secret.
  void Forget() { mac_.Forget(); }

 private:
  bool open_;
  Hmac mac_;
};

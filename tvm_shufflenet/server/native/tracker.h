// The link to a TVM RPC tracker: offers this device under its key, again after every session and every lost connection.
#pragma once

#include <poll.h>

#include <deque>
#include <string>

#include "net.h"

class TrackerLink {
 public:
  // `custom_addr` is the address clients are told to use; empty: the one the tracker sees.
  TrackerLink(std::string host, int port, std::string key, std::string custom_addr, int listen_port);

  // A client must present this. Empty while the device is not on offer.
  const std::string& match_key() const { return match_key_; }

  // Puts the device on offer under a new match key, or takes it off: the tracker has given its key away.
  void Offer();
  void Withdraw() { match_key_.clear(); }

  // For the server's poll loop. None of these waits.
  int fd() const { return fd_; }
  short PollEvents() const { return state_ == State::kConnecting ? POLLOUT : POLLIN; }
  TimePoint NextTick() const { return next_tick_; }
  void OnReady();
  void OnTick();

 private:
  enum class State { kDown, kConnecting, kGreeting, kUp };
  enum class Reply { kDone, kPendingKeys };

  void Connect();
  void Drop(const std::string& reason);
  void Request(const std::string& json, Reply expected);
  void Register();
  void Put();
  void OnReply(const std::string& json);
  void OnPendingKeys(const std::string& json);

  const std::string host_, key_, custom_addr_;
  const int port_, listen_port_;
  int fd_ = -1;
  State state_ = State::kDown;
  TimePoint next_tick_;         // when to retry, to ping, or to give up waiting for an answer
  std::string received_;        // bytes of an incomplete message
  std::deque<Reply> expected_;  // what the tracker still owes, in order
  std::string match_key_;
  int pings_without_key_ = 0;
  bool complained_ = false;  // one line per loss, not one per attempt
};

// How many connections each other machine has, without being told when one ends.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <string>
#include <unordered_map>

#include "absl/time/time.h"

namespace lwq {

// Of one thread.
class PeerCounts {
 public:
  // Counts the connection `fd` from `peer`, unless its machine has `most` already: false. Of IPv6 a
  // machine is its network of 64 bits, in which it may give itself any address.
  bool Add(int fd, const sockaddr_storage& peer, int most);

 private:
  struct Connection {
    std::string machine;
    in_port_t port;
  };
  static Connection ConnectionOf(const sockaddr_storage& peer);
  void Remove(std::unordered_map<int, Connection>::iterator at);
  void RemoveEnded(const std::string& machine);

  std::unordered_map<int, Connection> open_;  // by descriptor; some have ended
  std::unordered_map<std::string, int> counts_;
  absl::Time next_look_ = absl::InfinitePast();
};

}  // namespace lwq

#include "base/rpc/peer_counts.h"

#include <netinet/in.h>

#include <iterator>
#include <utility>

#include "absl/time/clock.h"

namespace lwq {
namespace {

// One who has too many makes a look for those that have ended with each further one.
constexpr absl::Duration kLookEvery = absl::Milliseconds(100);

}  // namespace

PeerCounts::Connection PeerCounts::ConnectionOf(const sockaddr_storage& peer) {
  if (peer.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(peer);
    return {std::string(reinterpret_cast<const char*>(&v4.sin_addr), 4), v4.sin_port};
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(peer);
  const char* bytes = reinterpret_cast<const char*>(&v6.sin6_addr);
  // IPv4 by a socket of both kinds comes as IPv6 with the address at the end.
  const bool is_v4 = IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr);
  return {is_v4 ? std::string(bytes + 12, 4) : std::string(bytes, 8), v6.sin6_port};
}

bool PeerCounts::Add(int fd, const sockaddr_storage& peer, int most) {
  // The kernel gives a number again only after its connection was closed.
  if (const auto before = open_.find(fd); before != open_.end()) Remove(before);
  Connection connection = ConnectionOf(peer);
  const auto at_most = [&] {
    const auto count = counts_.find(connection.machine);
    return count != counts_.end() && count->second >= most;
  };
  if (at_most()) RemoveEnded(connection.machine);
  if (at_most()) return false;
  ++counts_[connection.machine];
  open_.emplace(fd, std::move(connection));
  return true;
}

void PeerCounts::Remove(std::unordered_map<int, Connection>::iterator at) {
  const auto count = counts_.find(at->second.machine);
  if (--count->second == 0) counts_.erase(count);
  open_.erase(at);
}

void PeerCounts::RemoveEnded(const std::string& machine) {
  const absl::Time now = absl::Now();
  if (now < next_look_) return;
  next_look_ = now + kLookEvery;
  for (auto at = open_.begin(); at != open_.end();) {
    const auto next = std::next(at);
    sockaddr_storage peer = {};
    socklen_t size = sizeof peer;
    const bool same =
        at->second.machine != machine ||
        (::getpeername(at->first, reinterpret_cast<sockaddr*>(&peer), &size) == 0 &&
         (peer.ss_family == AF_INET || peer.ss_family == AF_INET6) &&
         ConnectionOf(peer).machine == machine && ConnectionOf(peer).port == at->second.port);
    if (!same) Remove(at);
    at = next;
  }
}

}  // namespace lwq

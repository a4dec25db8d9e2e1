// Listening sockets whose connections are taken by a thread of their own. gRPC's own listener is
// closed for good by the first connection for which no descriptor is free, and says nothing of it:
// whoever opens enough connections would make a server deaf until it is started anew.
#pragma once

#include <sys/socket.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/rpc/peer_counts.h"

namespace lwq {

// As many descriptors as the process may ask for (RLIMIT_NOFILE), for one that takes connections.
void RaiseDescriptorLimit();

class Listener {
 public:
  struct Handlers {
    std::function<void(int fd)> take;  // a new connection that does not block; it owns the fd
    // After one was closed at once, as "all" have too many descriptors, or "one" machine too many
    // connections: a quarter of what there may be. Many on this machine may be others' that
    // something hands on.
    std::function<void(const std::string& who)> refuse;
  };
  // "unix:/path", where a socket that is there is replaced, or "host:port": all addresses of the
  // host that can be had; port 0 takes a free one, and any address of IPv4 or IPv6 takes both.
  // Connections wait until the Start. UNAVAILABLE "ADDRESS_IN_USE".
  static absl::StatusOr<std::unique_ptr<Listener>> Open(const std::string& address);
  ~Listener();

  // With the port that is listened on.
  const std::string& address() const { return address_; }

  // Calls the handlers from its thread until Stop or the end.
  void Start(Handlers handlers);
  // No new connections: the sockets are closed, and a Unix socket's file is deleted. Those that
  // were taken are not touched.
  void Stop();

 private:
  explicit Listener(const std::string& address) : address_(address) {}
  bool OpenUnix(const std::string& path);
  bool OpenAll(const std::string& host, const std::string& port);
  void Run();
  bool TakeFrom(int listener);
  void Take(int fd, const sockaddr_storage& peer);
  void Refuse(int fd, const std::string& who, const std::string& why);
  void Warn(const std::string& why);

  std::string address_;
  std::string path_;  // of the Unix socket; empty: none
  std::vector<int> sockets_;
  int wake_ = -1;  // readable once the thread is to end
  Handlers handlers_;
  std::thread thread_;
  // Of the thread alone:
  PeerCounts peers_;
  absl::Time next_warning_ = absl::InfinitePast();
  int refused_ = 0;  // since the last warning
};

}  // namespace lwq

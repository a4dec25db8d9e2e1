#include "base/rpc/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/reasons.h"

namespace lwq {
namespace {

constexpr int kType = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
constexpr int kAtOnce = 64;         // connections of one socket before the others are looked at
constexpr int kPauseMs = 100;       // after the kernel gave none
constexpr int kMostAtAll = 32'768;  // each has buffers: 100 KiB with TLS
constexpr absl::Duration kWarnEvery = absl::Seconds(10);

// The first descriptor that no connection may have. The kernel hands out the lowest that is free,
// so this many are open then. What is kept back is for the store, the blobs and the metrics' port.
int DescriptorLimit() {
  rlimit limit = {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return kMostAtAll;
  const int all = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 1 << 30));
  const int reserve = std::min(std::clamp(all / 8, 64, 4'096), all / 2);
  return std::min(all - reserve, kMostAtAll);
}

// A listening socket; -1 where it cannot be had.
int ListenAt(const sockaddr* address, socklen_t size) {
  const int fd = ::socket(address->sa_family, kType, 0);
  if (fd < 0) return -1;
  if (address->sa_family != AF_UNIX) {
    // Those of the connections, which have them from here, and as gRPC sets them: a connection
    // whose bytes nobody confirms ends after as long as one that answers no ping.
    const int on = 1, off = 0, unconfirmed_ms = 20'000;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unconfirmed_ms, sizeof unconfirmed_ms);
    if (address->sa_family == AF_INET6) {
      ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
  }
  if (::bind(fd, address, size) == 0 && ::listen(fd, SOMAXCONN) == 0) return fd;
  ::close(fd);
  return -1;
}

// Of TCP; the port of IPv4 lies where that of IPv6 does.
in_port_t* PortOf(sockaddr_storage* address) {
  return &reinterpret_cast<sockaddr_in6*>(address)->sin6_port;
}

bool IsAny(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    return reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr == INADDR_ANY;
  }
  return address.ss_family == AF_INET6 &&
         IN6_IS_ADDR_UNSPECIFIED(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
}

// The addresses to listen on. For any of IPv4 or IPv6 both by one socket comes first.
std::vector<sockaddr_storage> LookUp(const std::string& host, const std::string& port) {
  std::vector<sockaddr_storage> addresses;
  addrinfo wanted = {};
  wanted.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), port.c_str(), &wanted, &found) != 0) return addresses;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    sockaddr_storage address = {};
    std::memcpy(&address, one->ai_addr, std::min<size_t>(one->ai_addrlen, sizeof address));
    if (IsAny(address) && address.ss_family == AF_INET) {
      sockaddr_storage both = {};
      both.ss_family = AF_INET6;
      *PortOf(&both) = *PortOf(&address);
      addresses.push_back(both);
    }
    addresses.push_back(address);
  }
  ::freeaddrinfo(found);
  return addresses;
}

socklen_t SizeOf(const sockaddr_storage& address) {
  return address.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
}

// Whether it is a connection from another machine.
bool IsOther(const sockaddr_storage& peer) {
  if (peer.ss_family == AF_INET) {
    return *reinterpret_cast<const uint8_t*>(
               &reinterpret_cast<const sockaddr_in&>(peer).sin_addr) != IN_LOOPBACKNET;
  }
  if (peer.ss_family != AF_INET6) return false;
  const in6_addr& address = reinterpret_cast<const sockaddr_in6&>(peer).sin6_addr;
  if (IN6_IS_ADDR_V4MAPPED(&address)) return address.s6_addr[12] != IN_LOOPBACKNET;
  return !IN6_IS_ADDR_LOOPBACK(&address);
}

std::string Text(const sockaddr_storage& peer) {
  char text[NI_MAXHOST] = "";
  ::getnameinfo(reinterpret_cast<const sockaddr*>(&peer), SizeOf(peer), text, sizeof text, nullptr,
                0, NI_NUMERICHOST);
  return text;
}

void UnlinkSocket(const std::string& path) {
  struct stat info = {};
  if (::lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)) ::unlink(path.c_str());
}

}  // namespace

void RaiseDescriptorLimit() {
  rlimit limit = {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Open(const std::string& address) {
  auto listener = std::unique_ptr<Listener>(new Listener(address));
  absl::string_view rest = address;
  bool opened = false;
  if (absl::ConsumePrefix(&rest, "unix:")) {
    opened = listener->OpenUnix(std::string(rest));
  } else {
    absl::ConsumePrefix(&rest, "dns:///");
    const size_t colon = rest.rfind(':');
    absl::string_view host = rest.substr(0, colon);
    if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
    opened = colon != absl::string_view::npos && !host.empty() &&
             listener->OpenAll(std::string(host), std::string(rest.substr(colon + 1)));
  }
  listener->wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (!opened || listener->wake_ < 0) {
    return Failure(
        reasons::kAddressInUse,
        absl::StrCat("listening on ", address, ": the address is taken or cannot be used"));
  }
  return listener;
}

bool Listener::OpenUnix(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.data(), path.size());
  UnlinkSocket(path);
  const int fd = ListenAt(reinterpret_cast<const sockaddr*>(&address), sizeof address);
  if (fd < 0) return false;
  path_ = path;
  sockets_.push_back(fd);
  return true;
}

bool Listener::OpenAll(const std::string& host, const std::string& port) {
  in_port_t taken = 0;
  for (sockaddr_storage& address : LookUp(host, port)) {
    if (taken != 0) *PortOf(&address) = taken;
    const int fd = ListenAt(reinterpret_cast<const sockaddr*>(&address), SizeOf(address));
    if (fd < 0) continue;
    sockets_.push_back(fd);
    sockaddr_storage own = {};
    socklen_t size = sizeof own;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size) != 0) return false;
    taken = *PortOf(&own);
  }
  address_ = absl::StrCat(address_.substr(0, address_.rfind(':')), ":", ntohs(taken));
  return !sockets_.empty();
}

Listener::~Listener() { Stop(); }

void Listener::Start(Handlers handlers) {
  handlers_ = std::move(handlers);
  thread_ = std::thread([this] { Run(); });
}

void Listener::Stop() {
  if (thread_.joinable()) {
    ::eventfd_write(wake_, 1);
    thread_.join();
  }
  for (int fd : sockets_) ::close(fd);
  sockets_.clear();
  if (wake_ >= 0) ::close(std::exchange(wake_, -1));
  if (!path_.empty()) UnlinkSocket(std::exchange(path_, ""));
}

void Listener::Run() {
  std::vector<pollfd> waits = {{wake_, POLLIN, 0}};
  for (int fd : sockets_) waits.push_back({fd, POLLIN, 0});
  while (true) {
    bool took = ::poll(waits.data(), waits.size(), -1) > 0;
    if (took && waits[0].revents != 0) return;
    for (size_t i = 1; took && i < waits.size(); ++i) {
      if (waits[i].revents != 0) took = TakeFrom(waits[i].fd);
    }
    if (!took && ::poll(waits.data(), 1, kPauseMs) > 0) return;
  }
}

// False where the kernel gives none for now; that is never for good.
bool Listener::TakeFrom(int listener) {
  for (int i = 0; i < kAtOnce; ++i) {
    sockaddr_storage peer = {};
    socklen_t size = sizeof peer;
    const int fd = ::accept4(listener, reinterpret_cast<sockaddr*>(&peer), &size,
                             SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
    if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (fd < 0) {
      Warn(absl::StrCat("new connections wait: ", std::strerror(errno)));
      return false;
    }
    Take(fd, peer);
  }
  return true;
}

void Listener::Take(int fd, const sockaddr_storage& peer) {
  const int limit = DescriptorLimit();
  if (fd >= limit) {
    return Refuse(fd, "all", absl::StrCat("more than ", limit, " descriptors are open"));
  }
  if (IsOther(peer) && !peers_.Add(fd, peer, limit / 4)) {
    return Refuse(fd, "one", absl::StrCat(Text(peer), " has ", limit / 4, " open"));
  }
  handlers_.take(fd);
}

void Listener::Refuse(int fd, const std::string& who, const std::string& why) {
  ::close(fd);
  ++refused_;
  handlers_.refuse(who);
  Warn(absl::StrCat("new connections are closed, as ", why));
}

void Listener::Warn(const std::string& why) {
  const absl::Time now = absl::Now();
  if (now < next_warning_) return;
  next_warning_ = now + kWarnEvery;
  spdlog::warn("{} ({} closed since the last warning)", why, std::exchange(refused_, 0));
}

}  // namespace lwq

#include "base/rpc/listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/few_descriptors.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;

// What a listener's handlers were called with. Sends a byte to each connection and closes it.
class Taken {
 public:
  Listener::Handlers handlers() {
    Listener::Handlers handlers;
    handlers.take = [this](int fd) {
      const bool flags = (::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0 && ::fcntl(fd, F_GETFD) != 0;
      EXPECT_TRUE(flags) << "it may block, or programs that are started have it";
      ++taken;  // before whoever waits for the byte looks
      EXPECT_EQ(::send(fd, "x", 1, MSG_NOSIGNAL), 1);
      ::close(fd);
    };
    handlers.refuse = [this](const std::string& who) {
      EXPECT_EQ(who, "all");
      ++refused;
    };
    return handlers;
  }
  std::atomic<int> taken{0}, refused{0};
};

int PortOf(const std::string& address) {
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port)) << address;
  return port;
}

// The first byte that comes; 0: it is closed without one, -1: nobody listens.
int Byte(int fd, const sockaddr* address, socklen_t size) {
  char byte = 0;
  const bool connected = ::connect(fd, address, size) == 0;
  const ssize_t n = connected ? ::recv(fd, &byte, 1, 0) : 0;
  ::close(fd);
  return connected ? (n == 1 ? byte : 0) : -1;
}

int Ask4(int port) {
  const sockaddr_in address = Loopback(port);
  return Byte(::socket(AF_INET, SOCK_STREAM, 0), reinterpret_cast<const sockaddr*>(&address),
              sizeof address);
}

int Ask6(int port) {
  sockaddr_in6 address = {};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(static_cast<uint16_t>(port));
  address.sin6_addr = in6addr_loopback;
  return Byte(::socket(AF_INET6, SOCK_STREAM, 0), reinterpret_cast<const sockaddr*>(&address),
              sizeof address);
}

int AskUnix(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return Byte(::socket(AF_UNIX, SOCK_STREAM, 0), reinterpret_cast<const sockaddr*>(&address),
              sizeof address);
}

bool HasIpv6() {
  const auto listener = Listener::Open("[::1]:0");
  return listener.ok();
}

class ListenerTest : public ::testing::Test {
 protected:
  void SetUp() override { spdlog::set_level(spdlog::level::off); }
  // Opens and starts; null where it cannot be had.
  std::unique_ptr<Listener> Start(const std::string& address) {
    auto listener = Listener::Open(address);
    EXPECT_OK(listener.status());
    if (!listener.ok()) return nullptr;
    (*listener)->Start(taken_.handlers());
    return *std::move(listener);
  }
  Taken taken_;
};

TEST_F(ListenerTest, TakesConnectionsAtTheAddressAndNoneAfterItStopped) {
  const auto listener = Start("127.0.0.1:0");
  ASSERT_NE(listener, nullptr);
  const int port = PortOf(listener->address());
  EXPECT_EQ(listener->address(), absl::StrCat("127.0.0.1:", port));
  EXPECT_GT(port, 0);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Ask4(port), 'x');
  EXPECT_THAT(Listener::Open(listener->address()), FailsWith("ADDRESS_IN_USE", _));
  listener->Stop();
  EXPECT_EQ(Ask4(port), -1);
  EXPECT_EQ(taken_.taken, 3);
  EXPECT_OK(Listener::Open(listener->address()).status()) << "at once, by the next server";
}

TEST_F(ListenerTest, WhatComesBeforeTheStartWaits) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto listener, Listener::Open("127.0.0.1:0"));
  const int port = PortOf(listener->address());
  int answer = -1;
  std::thread early([&] { answer = Ask4(port); });
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_EQ(taken_.taken, 0);
  listener->Start(taken_.handlers());
  early.join();
  EXPECT_EQ(answer, 'x');
}

TEST_F(ListenerTest, ANameIsAllItsAddressesAndAnyIsBothKinds) {
  for (const char* host : {"localhost", "0.0.0.0"}) {
    const auto listener = Start(absl::StrCat(host, ":0"));
    ASSERT_NE(listener, nullptr);
    EXPECT_EQ(Ask4(PortOf(listener->address())), 'x') << host;
  }
  if (!HasIpv6()) GTEST_SKIP() << "no IPv6 here";
  for (const char* host : {"[::1]", "[::]", "0.0.0.0"}) {
    const auto listener = Start(absl::StrCat(host, ":0"));
    ASSERT_NE(listener, nullptr);
    EXPECT_EQ(Ask6(PortOf(listener->address())), 'x') << host;
    const int other = Ask4(PortOf(listener->address()));
    EXPECT_EQ(other, host == std::string("[::1]") ? -1 : 'x') << host;
  }
}

TEST_F(ListenerTest, AUnixSocketIsReplacedAndDeletedAndAFileIsNot) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto directory, TempDirectory::Create());
  const std::string path = JoinPath(directory.path(), "s");
  const auto left = Start("unix:" + path);  // as of a server that was killed
  const auto listener = Start("unix:" + path);
  ASSERT_NE(listener, nullptr);
  EXPECT_EQ(listener->address(), "unix:" + path);
  EXPECT_EQ(AskUnix(path), 'x');
  listener->Stop();
  EXPECT_FALSE(FileExists(path));
  ASSERT_OK(WriteFileAtomically(path, "dear to somebody"));
  EXPECT_THAT(Listener::Open("unix:" + path), FailsWith("ADDRESS_IN_USE", _));
  EXPECT_TRUE(FileExists(path));
  EXPECT_THAT(Listener::Open("unix:/" + std::string(200, 'x')), FailsWith("ADDRESS_IN_USE", _));
}

TEST_F(ListenerTest, WhatIsNoAddressOfThisMachineIsRefused) {
  for (const char* address :
       {"", "unix:", "127.0.0.1", ":0", "127.0.0.1:x", "192.0.2.1:0", "nobody.invalid:0", "[::1"}) {
    EXPECT_THAT(Listener::Open(address), FailsWith("ADDRESS_IN_USE", _)) << address;
  }
}

// gRPC's own would be closed for good here.
TEST_F(ListenerTest, GoesOnWhenNoDescriptorWasFree) {
  const auto listener = Start("127.0.0.1:0");
  ASSERT_NE(listener, nullptr);
  const int port = PortOf(listener->address());
  ManySockets strangers(50);
  {
    FewDescriptors none_free(0);
    strangers.Connect(port);
    absl::SleepFor(absl::Milliseconds(500));
    EXPECT_EQ(taken_.taken, 0);
  }
  strangers.Close();
  EXPECT_EQ(Ask4(port), 'x');
}

// What the store, the blobs and the port of the metrics need is not for connections.
TEST_F(ListenerTest, ClosesConnectionsThatWouldTakeTheLastDescriptors) {
  const auto listener = Start("127.0.0.1:0");
  ASSERT_NE(listener, nullptr);
  const int port = PortOf(listener->address());
  ManySockets strangers(100);
  {
    FewDescriptors few(60);
    EXPECT_EQ(Ask4(port), 0);
    strangers.Connect(port);
    while (taken_.refused < 101) absl::SleepFor(absl::Milliseconds(1));
    const int fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    EXPECT_GE(fd, 0);
    ::close(fd);
  }
  EXPECT_EQ(Ask4(port), 'x');
  EXPECT_EQ(taken_.taken, 1);
}

}  // namespace
}  // namespace lwq::testing

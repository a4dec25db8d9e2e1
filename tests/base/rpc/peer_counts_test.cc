#include "base/rpc/peer_counts.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace lwq::testing {
namespace {

sockaddr_storage V4(const char* address, int port) {
  sockaddr_storage peer = {};
  auto& v4 = reinterpret_cast<sockaddr_in&>(peer);
  v4.sin_family = AF_INET;
  v4.sin_port = htons(static_cast<uint16_t>(port));
  EXPECT_EQ(::inet_pton(AF_INET, address, &v4.sin_addr), 1);
  return peer;
}

sockaddr_storage V6(const char* address, int port) {
  sockaddr_storage peer = {};
  auto& v6 = reinterpret_cast<sockaddr_in6&>(peer);
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(static_cast<uint16_t>(port));
  EXPECT_EQ(::inet_pton(AF_INET6, address, &v6.sin6_addr), 1);
  return peer;
}

// A connection to a socket of this process: the side that is taken, and where it comes from.
struct Connected {
  int taken = -1, other = -1;
  sockaddr_storage peer = {};
};

class PeerCountsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    sockaddr_storage own = V4("127.0.0.1", 0);
    auto* raw = reinterpret_cast<sockaddr*>(&own);
    socklen_t size = sizeof(sockaddr_in);
    ASSERT_EQ(::bind(listener_, raw, size), 0);
    ASSERT_EQ(::listen(listener_, 10), 0);
    ASSERT_EQ(::getsockname(listener_, raw, &size), 0);
    own_ = own;
  }
  void TearDown() override { ::close(listener_); }
  Connected Connect() {
    Connected made;
    made.other = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(::connect(made.other, reinterpret_cast<const sockaddr*>(&own_), sizeof(sockaddr_in)),
              0);
    socklen_t size = sizeof made.peer;
    made.taken = ::accept(listener_, reinterpret_cast<sockaddr*>(&made.peer), &size);
    return made;
  }
  static void Close(const Connected& connected) {
    ::close(connected.taken);
    ::close(connected.other);
  }

  const int listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_storage own_ = {};
  PeerCounts counts_;
};

TEST_F(PeerCountsTest, OneMachineHasTheMostAndOthersStillTheirs) {
  const Connected a = Connect(), b = Connect(), c = Connect();
  EXPECT_TRUE(counts_.Add(a.taken, a.peer, 2));
  EXPECT_TRUE(counts_.Add(b.taken, b.peer, 2));
  EXPECT_FALSE(counts_.Add(c.taken, c.peer, 2));
  EXPECT_FALSE(counts_.Add(c.taken, V6("::ffff:127.0.0.1", 1), 2)) << "the same by both kinds";
  EXPECT_TRUE(counts_.Add(c.taken, V4("127.0.0.2", 1), 2));
  for (const Connected& one : {a, b, c}) Close(one);
}

TEST_F(PeerCountsTest, WhatHasEndedIsNotCounted) {
  const Connected a = Connect(), b = Connect(), c = Connect();
  ASSERT_TRUE(counts_.Add(a.taken, a.peer, 2));
  ASSERT_TRUE(counts_.Add(b.taken, b.peer, 2));
  ASSERT_FALSE(counts_.Add(c.taken, c.peer, 2));
  // A number that is nothing any more, and one that is something else by now.
  ::close(b.taken);
  ::close(b.other);
  absl::SleepFor(absl::Milliseconds(150));
  EXPECT_TRUE(counts_.Add(c.taken, c.peer, 2));
  ASSERT_EQ(::dup2(listener_, a.taken), a.taken);
  absl::SleepFor(absl::Milliseconds(150));
  const Connected d = Connect();
  EXPECT_TRUE(counts_.Add(d.taken, d.peer, 2));
  // A number that comes again is no second connection.
  EXPECT_TRUE(counts_.Add(d.taken, d.peer, 2));
  for (const Connected& one : {a, c, d}) Close(one);
}

TEST_F(PeerCountsTest, ANetworkOfIpv6IsOneMachine) {
  EXPECT_TRUE(counts_.Add(1000, V6("2001:db8::1", 1), 1));
  EXPECT_TRUE(counts_.Add(1001, V6("2001:db8:0:1::1", 1), 1)) << "another network";
  EXPECT_TRUE(counts_.Add(1000, V6("2001:db8::2", 1), 1)) << "the number of the first";
  EXPECT_TRUE(counts_.Add(1002, V4("10.0.0.1", 1), 1));
}

}  // namespace
}  // namespace lwq::testing

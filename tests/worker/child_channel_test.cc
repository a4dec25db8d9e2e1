#include "worker/child_channel.h"

#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "gtest/gtest.h"
#include "proto/lwq/v1/task_child.pb.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

class ChildChannelTest : public ::testing::Test {
 protected:
  ChildChannelTest() { EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, sockets_), 0); }
  int sockets_[2];
};

TEST_F(ChildChannelTest, MessagesOfAnySizeComeWholeAndInOrder) {
  ChildChannel here(sockets_[0]), there(sockets_[1]);
  std::thread sender([&] {
    for (int size : {0, 1, 5'000'000, 3}) {
      v1::TaskChildProgress message;
      message.set_current(std::string(static_cast<size_t>(size), 'x'));
      EXPECT_OK(here.Send(message));
    }
  });
  for (size_t size : {0, 1, 5'000'000, 3}) {
    v1::TaskChildProgress message;
    EXPECT_OK(there.Receive(&message));
    EXPECT_EQ(message.current().size(), size);
  }
  sender.join();
}

TEST_F(ChildChannelTest, WhoHasGoneIsNoticedByBoth) {
  ChildChannel here(sockets_[0]);
  ::close(sockets_[1]);
  v1::TaskChildProgress message;
  EXPECT_EQ(here.Receive(&message).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(here.Send(message).code(), absl::StatusCode::kUnavailable) << "and no SIGPIPE";
}

// A process that was taken over says what it likes.
TEST_F(ChildChannelTest, WhatIsNoMessageIsRefused) {
  ChildChannel here(sockets_[0]);
  v1::TaskChildProgress message;
  ASSERT_EQ(::write(sockets_[1], "\xff\xff\xff\xff", 4), 4);
  EXPECT_EQ(here.Receive(&message).code(), absl::StatusCode::kDataLoss) << "4 GiB are not reserved";
  ASSERT_EQ(::write(sockets_[1], "\x02\0\0\0\x12\x09", 6), 6);
  EXPECT_EQ(here.Receive(&message).code(), absl::StatusCode::kDataLoss);
  ::close(sockets_[1]);
}

}  // namespace
}  // namespace lwq::testing

#include "base/rpc/channel.h"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/testing/held_port.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;

TEST(ChannelTest, OneAddressIsGrpcsAndAListIsLookedUp) {
  EXPECT_EQ(ChannelTarget("unix:/run/lwq.sock"), "unix:/run/lwq.sock");
  EXPECT_EQ(ChannelTarget("example.test:7421"), "example.test:7421");
  EXPECT_EQ(ChannelTarget("127.0.0.1:1,localhost:2, 10.0.0.3:3,"),
            "ipv4:127.0.0.1:1,127.0.0.1:2,10.0.0.3:3");
  EXPECT_EQ(ChannelTarget("nowhere.invalid:1,127.0.0.1:2,noport"), "ipv4:127.0.0.1:2");
  EXPECT_EQ(ChannelTarget("nowhere.invalid:1,"), "nowhere.invalid:1,");
}

TEST(ChannelTest, AddressesAreChecked) {
  for (const char* good : {"unix:/run/lwq.sock", "localhost:7421", "10.0.0.1:1", "[::1]:7421",
                           "a:1,b:65535", "dns:///lwq.example:7421"}) {
    EXPECT_OK(CheckAddress(good)) << good;
  }
  for (const char* bad :
       {"", "foo", "http://localhost:7421", "localhost:99999", "localhost:0", "localhost:", ":7421",
        "localhost:7421x", "unix:", "a:1,", "a b:1", "localhost/x:1"}) {
    EXPECT_THAT(CheckAddress(bad), FailsWith("ADDRESS_INVALID", _)) << bad;
  }
}

class Listener {
 public:
  explicit Listener(int port) {
    grpc::ServerBuilder builder;
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddListeningPort(absl::StrCat("127.0.0.1:", port), grpc::InsecureServerCredentials());
    builder.RegisterCallbackGenericService(&no_calls_);
    server_ = builder.BuildAndStart();
  }
  ~Listener() { server_->Shutdown(std::chrono::system_clock::now()); }

 private:
  grpc::CallbackGenericService no_calls_;
  std::unique_ptr<grpc::Server> server_;
};

bool IsConnected(grpc::Channel& channel) {
  return channel.WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(60));
}

TEST(ChannelTest, AListFindsWhicheverServerListens) {
  const HeldPort a, b;
  auto channel = MakeChannel(absl::StrCat("127.0.0.1:", a.port(), ",127.0.0.1:", b.port()));
  {
    Listener leader(b.port());
    EXPECT_TRUE(IsConnected(*channel));
  }
  auto gone = std::chrono::system_clock::now() + std::chrono::seconds(60);
  EXPECT_TRUE(channel->WaitForStateChange(GRPC_CHANNEL_READY, gone));
  Listener leader(a.port());
  EXPECT_TRUE(IsConnected(*channel));
}

}  // namespace
}  // namespace lwq::testing

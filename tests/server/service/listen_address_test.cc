// Where a server listens, and who is let in by certificates (base/rpc/tls.h), over TCP.
#include "server/service/listen_address.h"

#include "absl/strings/numbers.h"
#include "base/rpc/connection_check.h"
#include "gmock/gmock.h"
#include "tests/server/service/tls_fixture.h"
#include "tests/testing/few_descriptors.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::HasSubstr;

TEST_F(TlsTest, OnlyClientsWithACertificateOfTheAuthorityAreAnswered) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto server, StartServer(Tls("ours", "server")));
  EXPECT_OK(Ask(*server, Tls("ours", "client")));
  EXPECT_FALSE(Ask(*server, Tls("ours", "")).ok()) << "without a certificate";
  EXPECT_FALSE(Ask(*server, Tls("ours", "stranger")).ok()) << "with another authority's";
  EXPECT_FALSE(Ask(*server, {}).ok()) << "in the clear";
}

// Each method of the API, as a client with a certificate of the authority that names no role.
TEST_F(TlsTest, WithoutARoleNoMethodIsAnswered) {
  MakeCertificate("nobody", "ours", "DNS:nobody");
  LWQ_ASSERT_OK_AND_ASSIGN(const auto server, StartServer(Tls("ours", "server")));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto credentials, ClientCredentials(Tls("ours", "nobody")));
  const auto channel = MakeChannel(server->address(), credentials);
  for (const std::string& method : MethodsOfTheApi()) {
    EXPECT_EQ(CallRaw(channel, method).error_code(), grpc::StatusCode::PERMISSION_DENIED) << method;
  }
}

TEST_F(TlsTest, AWorkerOrAClientMayDoItsOwnAndNoMore) {
  MakeCertificate("worker", "ours", "URI:spiffe://lwq/worker/w");
  LWQ_ASSERT_OK_AND_ASSIGN(const auto server, StartServer(Tls("ours", "server")));
  const auto call = [&](const std::string& who, const std::string& method) {
    const auto credentials = ClientCredentials(Tls("ours", who));
    EXPECT_OK(credentials);
    return CallRaw(MakeChannel(server->address(), *credentials), "/lwq.v1." + method).error_code();
  };
  EXPECT_EQ(call("client", "JobService/ListJobs"), grpc::StatusCode::OK);
  EXPECT_EQ(call("worker", "JobService/ListJobs"), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(call("client", "WorkerService/LeaseTasks"), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(call("worker", "WorkerService/LeaseTasks"), grpc::StatusCode::FAILED_PRECONDITION)
      << "it is not registered";
  EXPECT_EQ(call("client", "AdminService/CollectGarbage"), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(call("client", "AdminService/DrainServer"), grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(TlsTest, AClientTrustsNoOtherServer) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto server, StartServer(Tls("", "server")));
  EXPECT_OK(Ask(*server, Tls("ours", "")));
  EXPECT_FALSE(Ask(*server, Tls("theirs", "")).ok());
}

TEST_F(TlsTest, OtherMachinesMayConnectOnlyWhereClientsAreKnown) {
  const std::string everywhere = "0.0.0.0:0";
  EXPECT_THAT(StartServer({}, everywhere), FailsWith("ADDRESS_NOT_ALLOWED", _));
  EXPECT_THAT(StartServer(Tls("", "server"), everywhere), FailsWith("ADDRESS_NOT_ALLOWED", _))
      << "encrypted, but open to everybody";
  EXPECT_OK(StartServer(Tls("ours", "server"), everywhere));
  options_.takes_tokens = true;
  EXPECT_THAT(StartServer({}, everywhere), FailsWith("ADDRESS_NOT_ALLOWED", _))
      << "tokens would be in the clear";
  EXPECT_OK(StartServer(Tls("", "server"), everywhere));
}

// Whether a server's certificate is the one of that name: no other client trusts it.
TEST_F(TlsTest, ARenewedCertificateIsTakenAndABadOneIsNot) {
  MakeCertificate("next", "theirs", "IP:127.0.0.1");
  options_.reload_interval = absl::Milliseconds(1);
  LWQ_ASSERT_OK_AND_ASSIGN(const auto server, StartServer(Tls("", "server")));
  const auto copy = [&](const std::string& from, const std::string& to) {
    const auto content = ReadFile(path(from), 1 << 20);
    ASSERT_OK(content.status());
    ASSERT_OK(WriteFileAtomically(path(to), *content));
  };
  const auto wait_for = [&](const std::string& authority) {
    const absl::Time end = absl::Now() + absl::Seconds(20);
    absl::Status status = absl::UnknownError("");
    while (!status.ok() && absl::Now() < end) status = Ask(*server, Tls(authority, ""));
    return status;
  };
  ASSERT_OK(Ask(*server, Tls("ours", "")));
  copy("server.pem", "old.pem");
  copy("server.key", "old.key");

  // Another's certificate over a key that stays, then rubbish, then a file that is gone: each time
  // the old pair goes on.
  copy("next.pem", "server.pem");
  absl::SleepFor(absl::Seconds(1));
  EXPECT_OK(Ask(*server, Tls("ours", "")));
  EXPECT_FALSE(Ask(*server, Tls("theirs", "")).ok());
  ASSERT_OK(WriteFileAtomically(path("server.pem"), "-----BEGIN CERTIFICATE-----\nxx\n"));
  absl::SleepFor(absl::Seconds(1));
  EXPECT_OK(Ask(*server, Tls("ours", "")));
  ASSERT_OK(RemoveAll(path("server.pem")));
  absl::SleepFor(absl::Seconds(1));
  EXPECT_OK(Ask(*server, Tls("ours", "")));

  // Both of the new pair, and back again.
  copy("next.pem", "server.pem");
  copy("next.key", "server.key");
  EXPECT_OK(wait_for("theirs"));
  EXPECT_FALSE(Ask(*server, Tls("ours", "")).ok());
  copy("old.pem", "server.pem");
  copy("old.key", "server.key");
  EXPECT_OK(wait_for("ours"));
}

// A new authority of clients is asked for as well.
TEST_F(TlsTest, ARenewedAuthorityLetsItsClientsIn) {
  options_.reload_interval = absl::Milliseconds(1);
  LWQ_ASSERT_OK_AND_ASSIGN(const auto server, StartServer(Tls("ours", "server")));
  EXPECT_FALSE(Ask(*server, Tls("ours", "stranger")).ok());
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string ours, ReadFile(path("ours.pem"), 1 << 20));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string theirs, ReadFile(path("theirs.pem"), 1 << 20));
  ASSERT_OK(WriteFileAtomically(path("ours.pem"), absl::StrCat(ours, theirs)));
  const absl::Time end = absl::Now() + absl::Seconds(20);
  absl::Status status = absl::UnknownError("");
  while (!status.ok() && absl::Now() < end) status = Ask(*server, Tls("ours", "stranger"));
  EXPECT_OK(status);
  EXPECT_OK(Ask(*server, Tls("ours", "client")));
}

// Connections of somebody who says nothing, more than there are descriptors: gRPC's own listener
// was deaf for ever after them.
TEST_F(TlsTest, IdleConnectionsMakeNoServerDeafForLongerThanTheyAreThere) {
  for (const bool secure : {false, true}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const auto server,
                             StartServer(secure ? Tls("ours", "server") : TlsOptions()));
    const TlsOptions client = secure ? Tls("ours", "client") : TlsOptions();
    LWQ_ASSERT_OK_AND_ASSIGN(const auto credentials, ClientCredentials(client));
    const auto connected = MakeChannel(server->address(), credentials);
    const std::string method = "/lwq.v1.JobService/ListJobs";
    ASSERT_TRUE(CallRaw(connected, method).ok());
    int port = 0;
    const std::string& address = server->address();
    ASSERT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
    ManySockets strangers(100);
    {
      FewDescriptors few(20);
      strangers.Connect(port);
      absl::SleepFor(absl::Seconds(1));
      EXPECT_TRUE(CallRaw(connected, method).ok()) << "who was there before is served";
      strangers.Close();
    }
    // Without TLS gRPC would give the call the connection that is there.
    EXPECT_OK(CheckConnection(server->address(), client, absl::Seconds(5)));
    EXPECT_OK(Ask(*server, client)) << (secure ? "with" : "without") << " TLS";
  }
}

// A worker's channel is older than its certificate.
TEST_F(TlsTest, AClientsRenewedCertificateIsShownByTheChannelThatItHas) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto server, StartServer(Tls("ours", "server")));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto credentials,
                           ClientCredentials(Tls("ours", "stranger"), absl::Seconds(1)));
  const auto channel = MakeChannel(server->address(), credentials);
  const std::string method = "/lwq.v1.JobService/ListJobs";
  EXPECT_FALSE(CallRaw(channel, method).ok());
  for (const char* kind : {".pem", ".key"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const std::string own, ReadFile(path("client") + kind, 1 << 20));
    ASSERT_OK(WriteFileAtomically(path("stranger") + kind, own));
  }
  const absl::Time end = absl::Now() + absl::Seconds(20);
  while (!CallRaw(channel, method).ok() && absl::Now() < end) absl::SleepFor(absl::Seconds(.1));
  EXPECT_TRUE(CallRaw(channel, method).ok());
}

TEST_F(TlsTest, FilesThatDoNotBelongTogetherAreRefused) {
  TlsOptions tls = Tls("ours", "server");
  tls.key_file = path("client.key");
  EXPECT_THAT(StartServer(tls), FailsWith("TLS_INVALID", HasSubstr("not the key of")));
  EXPECT_THAT(ClientCredentials(tls), FailsWith("TLS_INVALID", _));
  tls.key_file = path("names");
  EXPECT_THAT(StartServer(tls), FailsWith("TLS_INVALID", HasSubstr("no PEM key")));
  tls.key_file.clear();
  EXPECT_THAT(StartServer(tls), FailsWith("TLS_INVALID", _));
  EXPECT_THAT(StartServer(Tls("ours", "")), FailsWith("TLS_INVALID", _));
  EXPECT_THAT(StartServer(Tls("absent", "server")), FailsWith("TLS_INVALID", HasSubstr("absent")));
}

}  // namespace
}  // namespace lwq::testing

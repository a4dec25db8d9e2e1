// Real servers of gRPC and mute ones, with certificates that the openssl program makes.
#include "base/rpc/connection_check.h"

#include <grpcpp/grpcpp.h>
#include <stdlib.h>

#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/mute_port.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(20);  // of a machine that does other things

class ConnectionCheckTest : public ::testing::Test {
 protected:
  ConnectionCheckTest() : directory_(*TempDirectory::Create()) {}
  void SetUp() override {
    if (std::system("openssl version > /dev/null 2>&1") != 0) GTEST_SKIP() << "no openssl program";
    for (const char* authority : {"ours", "theirs"}) {
      OpenSsl(absl::StrCat("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 ",
                           "-subj /CN=", authority, " -keyout ", Path(authority), ".key -out ",
                           Path(authority), ".pem"));
    }
    MakeCertificate("server", "ours", "DNS:localhost,DNS:queue.example");
    MakeCertificate("client", "ours", "URI:spiffe://lwq/client/anna");
    MakeCertificate("stranger", "theirs", "URI:spiffe://lwq/client/anna");
  }
  std::string Path(const std::string& name) const { return JoinPath(directory_.path(), name); }
  static void OpenSsl(const std::string& arguments) {
    ASSERT_EQ(std::system(absl::StrCat("openssl ", arguments, " 2> /dev/null").c_str()), 0)
        << arguments;
  }
  void MakeCertificate(const std::string& name, const std::string& authority,
                       const std::string& names) {
    ASSERT_OK(WriteFileAtomically(Path("names"), absl::StrCat("subjectAltName=", names, "\n")));
    OpenSsl(absl::StrCat("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=", name,
                         " -keyout ", Path(name), ".key -out ", Path(name), ".csr"));
    OpenSsl(absl::StrCat("x509 -req -days 2 -in ", Path(name), ".csr -CA ", Path(authority),
                         ".pem -CAkey ", Path(authority), ".key -CAcreateserial -extfile ",
                         Path("names"), " -out ", Path(name), ".pem"));
  }
  TlsOptions Tls(const std::string& ca, const std::string& name = "") const {
    TlsOptions tls;
    if (!ca.empty()) tls.ca_file = Path(ca) + ".pem";
    if (!name.empty()) {
      tls.cert_file = Path(name) + ".pem";
      tls.key_file = Path(name) + ".key";
    }
    return tls;
  }
  void Start(std::shared_ptr<grpc::ServerCredentials> credentials) {
    Stop();
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", credentials, &port_);
    // Without a service it needs a queue, whose reader does the server's work.
    queue_ = builder.AddCompletionQueue();
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    reader_ = std::thread([queue = queue_.get()] {
      void* tag = nullptr;
      bool ok = false;
      while (queue->Next(&tag, &ok)) continue;
    });
  }
  void Stop() {
    if (server_ == nullptr) return;
    server_->Shutdown();
    queue_->Shutdown();
    reader_.join();
    server_.reset();
  }
  void TearDown() override { Stop(); }
  // `client_ca`: of those whose certificates are asked for.
  void StartTls(const std::string& client_ca = "") {
    LWQ_ASSERT_OK_AND_ASSIGN(certificates_,
                             ServerCertificates::Load(Tls(client_ca, "server"),
                                                      ServerCertificates::Clients::kMustHaveOne));
    Start(certificates_->Credentials());
  }
  std::string At(const std::string& host) const { return absl::StrCat(host, ":", port_); }

  TempDirectory directory_;
  std::unique_ptr<ServerCertificates> certificates_;
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::unique_ptr<grpc::Server> server_;
  std::thread reader_;
  int port_ = 0;
};

TEST_F(ConnectionCheckTest, NothingIsWrongWhereBothSidesSpeakTheSame) {
  Start(grpc::InsecureServerCredentials());
  EXPECT_OK(CheckConnection(At("127.0.0.1"), {}, kPatience));
  StartTls("ours");
  EXPECT_OK(CheckConnection(At("localhost"), Tls("ours", "client"), kPatience));
  Stop();
  EXPECT_OK(CheckConnection(At("127.0.0.1"), {}, kPatience));  // refused: the call has said so
}

TEST_F(ConnectionCheckTest, OneSideThatSpeaksTlsAloneIsTold) {
  StartTls();
  EXPECT_THAT(CheckConnection(At("127.0.0.1"), {}, kPatience),
              FailsWith("TLS_INVALID", HasSubstr("it speaks TLS: give --tls-ca")));
  StartTls("ours");  // which ends the connection of whoever has no certificate
  EXPECT_THAT(CheckConnection(At("127.0.0.1"), {}, kPatience),
              FailsWith("TLS_INVALID", HasSubstr("it speaks TLS: give --tls-ca")));
  Start(grpc::InsecureServerCredentials());
  EXPECT_THAT(CheckConnection(At("127.0.0.1"), Tls("ours"), kPatience),
              FailsWith("TLS_INVALID", HasSubstr("leave out --tls-ca")));
}

TEST_F(ConnectionCheckTest, ACertificateThatIsNotTakenIsToldWithItsFlag) {
  StartTls();
  EXPECT_THAT(CheckConnection(At("localhost"), Tls("theirs"), kPatience),
              FailsWith("TLS_INVALID",
                        AllOf(HasSubstr("not the one of --tls-ca"), HasSubstr("theirs.pem"))));
  EXPECT_THAT(CheckConnection(At("127.0.0.1"), Tls("ours"), kPatience),
              FailsWith("TLS_INVALID", AllOf(HasSubstr("localhost, queue.example"),
                                             HasSubstr("not for 127.0.0.1"))));
  StartTls("ours");
  EXPECT_THAT(CheckConnection(At("localhost"), Tls("ours"), kPatience),
              FailsWith("TLS_INVALID", HasSubstr("give --tls-cert FILE")));
  EXPECT_THAT(CheckConnection(At("localhost"), Tls("ours", "stranger"), kPatience),
              FailsWith("TLS_INVALID", HasSubstr("does not take --tls-cert")));
}

TEST_F(ConnectionCheckTest, WhoTakesConnectionsAndSaysNothingIsToldFromOneThatIsAway) {
  std::string where;
  {
    const MutePort mute;
    where = mute.address();
    for (const TlsOptions& tls : {TlsOptions(), Tls("ours")}) {
      EXPECT_THAT(CheckConnection(where, tls, absl::Milliseconds(200)),
                  FailsWith("UNAVAILABLE", HasSubstr("says nothing")));
    }
  }
  EXPECT_OK(CheckConnection(where, {}, absl::Milliseconds(200)));
}

}  // namespace
}  // namespace lwq::testing

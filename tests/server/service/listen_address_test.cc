// Where a server listens, and who is let in by certificates (base/rpc/tls.h), over TCP. The
// certificates are made by the openssl program.
#include "server/service/listen_address.h"

#include <stdlib.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rpc/channel.h"
#include "base/rpc/grpc_status.h"
#include "base/rpc/tls.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "proto/lwq/v1/admin_service.grpc.pb.h"
#include "proto/lwq/v1/artifact_service.pb.h"
#include "proto/lwq/v1/job_service.pb.h"
#include "proto/lwq/v1/model_service.pb.h"
#include "proto/lwq/v1/worker_service.pb.h"
#include "server/service/server.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::HasSubstr;

// "/lwq.v1.JobService/GetJob" of all.
std::vector<std::string> MethodsOfTheApi() {
  std::vector<std::string> methods;
  for (const google::protobuf::FileDescriptor* file :
       {v1::GetServerInfoRequest::descriptor()->file(),
        v1::GetArtifactRequest::descriptor()->file(), v1::GetJobRequest::descriptor()->file(),
        v1::GetModelRequest::descriptor()->file(), v1::LeaseTasksRequest::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        methods.push_back(absl::StrCat("/", file->service(s)->full_name(), "/",
                                       file->service(s)->method(m)->name()));
      }
    }
  }
  return methods;
}

// Sends an empty message to a method of whatever kind, and reads what comes.
grpc::StatusCode CallRaw(const std::shared_ptr<grpc::Channel>& channel, const std::string& method) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, method, &queue);
  void* tag = nullptr;
  bool ok = true;
  call->StartCall(nullptr);
  queue.Next(&tag, &ok);
  const grpc::Slice nothing;
  if (ok) {
    call->WriteLast(grpc::ByteBuffer(&nothing, 1), grpc::WriteOptions(), nullptr);
    queue.Next(&tag, &ok);
  }
  grpc::ByteBuffer answer;
  while (ok) {
    call->Read(&answer, nullptr);
    queue.Next(&tag, &ok);
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  queue.Next(&tag, &ok);
  return status.error_code();
}

class TlsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    spdlog::set_level(spdlog::level::off);
    if (std::system("openssl version > /dev/null 2>&1") != 0) GTEST_SKIP() << "no openssl program";
    LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
    directory_ = std::make_unique<TempDirectory>(std::move(directory));
    for (const char* authority : {"ours", "theirs"}) {
      OpenSsl(absl::StrCat("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 ",
                           "-subj /CN=", authority, " -keyout ", path(authority), ".key -out ",
                           path(authority), ".pem"));
    }
    MakeCertificate("server", "ours", "IP:127.0.0.1,DNS:localhost");
    MakeCertificate("client", "ours", "URI:spiffe://lwq/client/anna");
    MakeCertificate("stranger", "theirs", "URI:spiffe://lwq/client/anna");
  }
  std::string path(const std::string& name) const { return JoinPath(directory_->path(), name); }
  static void OpenSsl(const std::string& arguments) {
    ASSERT_EQ(std::system(absl::StrCat("openssl ", arguments, " 2> /dev/null").c_str()), 0)
        << arguments;
  }
  void MakeCertificate(const std::string& name, const std::string& authority,
                       const std::string& names) {
    ASSERT_OK(WriteFileAtomically(path("names"), absl::StrCat("subjectAltName=", names, "\n")));
    OpenSsl(absl::StrCat("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=", name,
                         " -keyout ", path(name), ".key -out ", path(name), ".csr"));
    OpenSsl(absl::StrCat("x509 -req -days 2 -in ", path(name), ".csr -CA ", path(authority),
                         ".pem -CAkey ", path(authority), ".key -CAcreateserial -extfile ",
                         path("names"), " -out ", path(name), ".pem"));
  }
  TlsOptions Tls(const std::string& ca, const std::string& name) const {
    TlsOptions tls;
    if (!ca.empty()) tls.ca_file = path(ca) + ".pem";
    if (!name.empty()) {
      tls.cert_file = path(name) + ".pem";
      tls.key_file = path(name) + ".key";
    }
    return tls;
  }
  absl::StatusOr<std::unique_ptr<Server>> StartServer(const TlsOptions& tls,
                                                      const std::string& listen = "127.0.0.1:0") {
    ServerOptions options;
    options.listen = listen;
    options.data_directory = path("data");
    options.tls = tls;
    return Server::Start(options);
  }
  absl::Status Ask(const Server& server, const TlsOptions& tls) {
    auto credentials = ClientCredentials(tls);
    if (!credentials.ok()) return credentials.status();
    auto stub = v1::AdminService::NewStub(MakeChannel(server.address(), *credentials));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    v1::ServerInfo info;
    return FromGrpcStatus(stub->GetServerInfo(&context, {}, &info));
  }

  std::unique_ptr<TempDirectory> directory_;
};

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
    EXPECT_EQ(CallRaw(channel, method), grpc::StatusCode::PERMISSION_DENIED) << method;
  }
}

TEST_F(TlsTest, AWorkerOrAClientMayDoItsOwnAndNoMore) {
  MakeCertificate("worker", "ours", "URI:spiffe://lwq/worker/w");
  LWQ_ASSERT_OK_AND_ASSIGN(const auto server, StartServer(Tls("ours", "server")));
  const auto call = [&](const std::string& who, const std::string& method) {
    const auto credentials = ClientCredentials(Tls("ours", who));
    EXPECT_OK(credentials);
    return CallRaw(MakeChannel(server->address(), *credentials), "/lwq.v1." + method);
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

TEST_F(TlsTest, OtherMachinesMayConnectOnlyWithCertificates) {
  const std::string everywhere = "0.0.0.0:0";
  EXPECT_THAT(StartServer({}, everywhere), FailsWith("ADDRESS_NOT_ALLOWED", _));
  EXPECT_THAT(StartServer(Tls("", "server"), everywhere), FailsWith("ADDRESS_NOT_ALLOWED", _))
      << "encrypted, but open to everybody";
  EXPECT_OK(StartServer(Tls("ours", "server"), everywhere));
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

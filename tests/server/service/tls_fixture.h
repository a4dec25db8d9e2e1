// Servers over TLS with certificates that the openssl program makes, and calls that no stub makes.
#pragma once

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
#include "proto/lwq/v1/token_service.pb.h"
#include "proto/lwq/v1/worker_service.pb.h"
#include "server/service/server.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {

// "/lwq.v1.JobService/GetJob" of all.
inline std::vector<std::string> MethodsOfTheApi() {
  std::vector<std::string> methods;
  for (const google::protobuf::FileDescriptor* file :
       {v1::GetServerInfoRequest::descriptor()->file(),
        v1::GetArtifactRequest::descriptor()->file(), v1::GetJobRequest::descriptor()->file(),
        v1::GetModelRequest::descriptor()->file(), v1::CreateTokenRequest::descriptor()->file(),
        v1::LeaseTasksRequest::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        methods.push_back(absl::StrCat("/", file->service(s)->full_name(), "/",
                                       file->service(s)->method(m)->name()));
      }
    }
  }
  return methods;
}

// Sends an empty message to a method of whatever kind, and reads what comes. `authorization`: what
// is shown; empty: nothing.
inline grpc::Status CallRaw(const std::shared_ptr<grpc::Channel>& channel,
                            const std::string& method, const std::string& authorization = "") {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  if (!authorization.empty()) context.AddMetadata("authorization", authorization);
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
  return status;
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
    options_.listen = listen;
    options_.data_directory = path("data");
    options_.tls = tls;
    return Server::Start(options_);
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
  ServerOptions options_;  // what a test adds to them
};

}  // namespace lwq::testing

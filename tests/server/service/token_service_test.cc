// Who is let in by tokens, over TLS and over a local socket, and what the audit log has of it.
#include "server/service/token_service.h"

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "base/rpc/token.h"
#include "gmock/gmock.h"
#include "proto/lwq/v1/job_service.grpc.pb.h"
#include "proto/lwq/v1/token_service.grpc.pb.h"
#include "tests/server/service/server_fixture.h"
#include "tests/server/service/tls_fixture.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kListJobs[] = "/lwq.v1.JobService/ListJobs";

std::string ReasonIn(const grpc::Status& status) { return ReasonOf(FromGrpcStatus(status)); }

std::vector<nlohmann::json> LinesOf(const std::string& file) {
  std::vector<nlohmann::json> lines;
  const std::string text = ReadFile(file, 1 << 24).value_or("");
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    lines.push_back(nlohmann::json::parse(line));
  }
  return lines;
}

// A server with a certificate that asks for tokens, and nobody else's client.
class TokenTlsTest : public TlsTest {
 protected:
  void SetUp() override {
    TlsTest::SetUp();
    if (IsSkipped()) return;
    options_.admin_token_file = path("admin.token");
    options_.audit_log = path("audit.jsonl");
    options_.clock = &clock_;
    LWQ_ASSERT_OK_AND_ASSIGN(server_, StartServer(Tls("", "server")));
    LWQ_ASSERT_OK_AND_ASSIGN(admin_, ReadTokenFile(path("admin.token")));
  }
  void TearDown() override { server_.reset(); }

  std::shared_ptr<grpc::Channel> Channel() const {
    return MakeChannel(server_->address(), *ClientCredentials(Tls("ours", "")));
  }
  grpc::Status Call(const std::string& method, const std::string& token) const {
    return CallRaw(Channel(), method, token.empty() ? "" : "Bearer " + token);
  }
  v1::CreateTokenResponse Make(v1::Token::Role role) const {
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer " + admin_);
    v1::CreateTokenRequest request;
    request.mutable_token()->set_principal("anna");
    request.mutable_token()->set_role(role);
    v1::CreateTokenResponse response;
    EXPECT_OK(FromGrpcStatus(
        v1::TokenService::NewStub(Channel())->CreateToken(&context, request, &response)));
    return response;
  }
  void Revoke(const v1::Token& token) const {
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer " + admin_);
    v1::RevokeTokenRequest request;
    request.set_name(token.name());
    v1::Token revoked;
    EXPECT_OK(FromGrpcStatus(
        v1::TokenService::NewStub(Channel())->RevokeToken(&context, request, &revoked)));
    EXPECT_TRUE(revoked.has_revoke_time());
  }

  SimulatedClock clock_;
  std::unique_ptr<Server> server_;
  std::string admin_;
};

// Each refusal: its code, its reason, and that nothing else is said.
TEST_F(TokenTlsTest, EachRefusalHasItsReason) {
  const v1::CreateTokenResponse client = Make(v1::Token::CLIENT);
  const v1::CreateTokenResponse revoked = Make(v1::Token::CLIENT);
  Revoke(revoked.token());
  std::string wrong = client.secret();
  wrong.back() = wrong.back() == 'A' ? 'Q' : 'A';
  EXPECT_OK(FromGrpcStatus(Call(kListJobs, client.secret())));
  const auto refused = [&](const std::string& token, const char* reason) {
    const grpc::Status status = Call(kListJobs, token);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
    EXPECT_EQ(ReasonIn(status), reason);
    EXPECT_THAT(status.error_message(), Not(HasSubstr(token.empty() ? "Bearer" : token)));
  };
  refused("", "TOKEN_MISSING");
  refused(wrong, "TOKEN_INVALID");
  refused(MakeTokenText("admin"), "TOKEN_INVALID");
  refused(revoked.secret(), "TOKEN_REVOKED");
  EXPECT_EQ(ReasonIn(CallRaw(Channel(), kListJobs, client.secret())), "TOKEN_INVALID")
      << "not said to be a bearer's";
  EXPECT_EQ(ReasonIn(CallRaw(Channel(), kListJobs, "Basic " + client.secret())), "TOKEN_INVALID");
  clock_.Advance(absl::Hours(24 * 91));
  refused(client.secret(), "TOKEN_EXPIRED");
  EXPECT_OK(FromGrpcStatus(Call(kListJobs, admin_))) << "the admin's own has no end";
}

TEST_F(TokenTlsTest, ARoleOpensItsMethodsAndNoOther) {
  const std::string client = Make(v1::Token::CLIENT).secret();
  const std::string op = Make(v1::Token::OPERATOR).secret();
  const std::string worker = Make(v1::Token::WORKER).secret();
  const std::map<std::string, unsigned> roles = {
      {client, kClient}, {op, kOperator}, {worker, kWorker}};
  for (const std::string& method : MethodsOfTheApi()) {
    const std::vector<std::string> parts =
        absl::StrSplit(method.substr(sizeof("/lwq.v1.") - 1), '/');
    for (const auto& [token, role] : roles) {
      const bool may = (RolesFor(parts[0], parts[1]) & role) != 0;
      const grpc::Status status = Call(method, token);
      EXPECT_EQ(ReasonIn(status) == "ROLE_REQUIRED", !may) << method << " " << role;
      EXPECT_NE(status.error_code(), grpc::StatusCode::UNAUTHENTICATED) << method;
    }
  }
  EXPECT_EQ(ReasonIn(Call("/lwq.v1.BlobService/ReadBlob", worker)), "BLOB_NOT_LEASED");
  EXPECT_NE(ReasonIn(Call("/lwq.v1.BlobService/ReadBlob", client)), "BLOB_NOT_LEASED");
}

TEST_F(TokenTlsTest, AStrangerLearnsNothingFromAnyMethod) {
  for (const std::string& method : MethodsOfTheApi()) {
    const grpc::Status status = Call(method, "");
    EXPECT_EQ(ReasonIn(status), "TOKEN_MISSING") << method;
    EXPECT_EQ(status.error_message(), "the caller shows neither a token nor a certificate");
  }
  EXPECT_EQ(Call("/grpc.health.v1.Health/Check", "").error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(TokenTlsTest, ACertificateDoesAsWellAndATokenGoesBeforeIt) {
  const v1::CreateTokenResponse client = Make(v1::Token::CLIENT);
  server_.reset();
  MakeCertificate("root", "ours", "URI:spiffe://lwq/admin/root");
  LWQ_ASSERT_OK_AND_ASSIGN(server_, StartServer(Tls("ours", "server")));
  const auto as = [&](const std::string& certificate, const std::string& token) {
    return ReasonIn(
        CallRaw(MakeChannel(server_->address(), *ClientCredentials(Tls("ours", certificate))),
                "/lwq.v1.TokenService/ListTokens", token.empty() ? "" : "Bearer " + token));
  };
  EXPECT_EQ(as("root", ""), "OK");
  EXPECT_EQ(as("", admin_), "OK");
  EXPECT_EQ(as("", ""), "TOKEN_MISSING");
  EXPECT_EQ(as("root", client.secret()), "ROLE_REQUIRED");
  EXPECT_EQ(as("root", MakeTokenText("t1")), "TOKEN_INVALID");
  EXPECT_EQ(as("client", ""), "ROLE_REQUIRED");
  EXPECT_EQ(as("stranger", admin_), "UNAVAILABLE") << "another authority's is refused by itself";
}

// An upload that is open when its token is revoked ends at its next message.
TEST_F(TokenTlsTest, WhatIsOpenEndsWithItsToken) {
  const v1::CreateTokenResponse client = Make(v1::Token::CLIENT);
  auto stub = v1::BlobService::NewStub(Channel());
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer " + client.secret());
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  v1::WriteBlobResponse response;
  auto writer = stub->WriteBlob(&context, &response);
  v1::WriteBlobRequest request;
  request.mutable_blob()->set_sha256(Sha256Hex("onetwo"));
  request.mutable_blob()->set_size_bytes(6);
  request.set_data("one");
  ASSERT_TRUE(writer->Write(request));
  Revoke(client.token());
  request.set_data("two");
  request.set_finish_write(true);
  writer->Write(request);
  writer->WritesDone();
  EXPECT_EQ(ReasonIn(writer->Finish()), "TOKEN_REVOKED");
}

TEST_F(TokenTlsTest, TheAuditLogSaysWhoDidWhatAndHasNoSecret) {
  const v1::CreateTokenResponse client = Make(v1::Token::CLIENT);
  Call("/lwq.v1.AdminService/DrainServer", client.secret());  // refused
  Call(kListJobs, client.secret());                           // changes nothing
  Call(kListJobs, MakeTokenText("t1"));                       // a stranger's
  Call("/lwq.v1.JobService/DeleteJob", client.secret());      // without a name
  Revoke(client.token());
  const std::vector<nlohmann::json> lines = LinesOf(path("audit.jsonl"));
  ASSERT_EQ(lines.size(), 5);
  EXPECT_EQ(lines[0]["method"], "TokenService.CreateToken");
  EXPECT_EQ(lines[0]["caller"], "tokens/admin");
  EXPECT_EQ(lines[0]["resource"], client.token().name());
  EXPECT_EQ(lines[0]["outcome"], "OK");
  EXPECT_EQ(lines[1]["method"], "AdminService.DrainServer");
  EXPECT_EQ(lines[1]["caller"], client.token().name());
  EXPECT_EQ(lines[1]["principal"], "anna");
  EXPECT_EQ(lines[1]["role"], "client");
  EXPECT_EQ(lines[1]["outcome"], "ROLE_REQUIRED");
  EXPECT_FALSE(lines[2].contains("caller"));
  EXPECT_EQ(lines[2]["outcome"], "TOKEN_INVALID");
  EXPECT_THAT(std::string(lines[2]["peer"]), HasSubstr("127.0.0.1"));
  EXPECT_EQ(lines[3]["outcome"], "NAME_INVALID");
  EXPECT_EQ(lines[4]["method"], "TokenService.RevokeToken");
  EXPECT_EQ(lines[4]["resource"], client.token().name());
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(path("audit.jsonl"), 1 << 20));
  for (const std::string& secret : {client.secret(), admin_}) {
    EXPECT_THAT(text, Not(HasSubstr(secret.substr(secret.size() - 43))));
  }
}

// A server on a Unix socket that asks for tokens, after one that asked nobody.
class TokenLocalTest : public ServerTest {
 protected:
  void AskForTokens() {
    options_.admin_token_file = path("admin.token");
    StartServer();
  }
  std::shared_ptr<grpc::Channel> ChannelWith(const std::string& token_file) {
    auto credentials = WithToken(nullptr, token_file, server_->address());
    EXPECT_OK(credentials.status());
    return MakeChannel(server_->address(), *credentials);
  }
};

TEST_F(TokenLocalTest, AWatchEndsWithItsTokenAndATokenIsReadAgain) {
  {
    ScriptedWorker worker(server_->address(), "w");
    AddModel();
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(JobRequest(5.0)));
  AskForTokens();
  v1::ListJobsResponse jobs;
  EXPECT_THAT(Call(*stubs_->jobs, &v1::JobService::Stub::ListJobs, v1::ListJobsRequest(), &jobs),
              FailsWith("TOKEN_MISSING", _));
  EXPECT_EQ(jobs.jobs_size(), 0);

  const auto admin = v1::TokenService::NewStub(ChannelWith(path("admin.token")));
  const auto make = [&](v1::CreateTokenResponse* made) {
    v1::CreateTokenRequest request;
    request.mutable_token()->set_principal("anna");
    request.mutable_token()->set_role(v1::Token::CLIENT);
    return Call(*admin, &v1::TokenService::Stub::CreateToken, request, made);
  };
  v1::CreateTokenResponse first, second;
  ASSERT_OK(make(&first));
  ASSERT_OK(make(&second));
  ASSERT_OK(WriteFileAtomically(path("client.token"), first.secret()));
  const auto stub = v1::JobService::NewStub(ChannelWith(path("client.token")));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  v1::WatchJobRequest watch;
  watch.set_name(job.name());
  const auto reader = stub->WatchJob(&context, watch);
  v1::JobEvent event;
  ASSERT_TRUE(reader->Read(&event));

  v1::RevokeTokenRequest revoke;
  revoke.set_name(first.token().name());
  v1::Token revoked;
  ASSERT_OK(Call(*admin, &v1::TokenService::Stub::RevokeToken, revoke, &revoked));
  std::atomic<bool> ended{false};
  std::thread time([&] {
    while (!ended) Advance(absl::Seconds(1));
  });
  while (reader->Read(&event)) continue;
  EXPECT_EQ(ReasonIn(reader->Finish()), "TOKEN_REVOKED");
  ended = true;
  time.join();

  EXPECT_THAT(Call(*stub, &v1::JobService::Stub::ListJobs, v1::ListJobsRequest(), &jobs),
              FailsWith("TOKEN_REVOKED", _));
  ASSERT_OK(WriteFileAtomically(path("client.token"), second.secret() + "\n"));
  ASSERT_OK(Call(*stub, &v1::JobService::Stub::ListJobs, v1::ListJobsRequest(), &jobs))
      << "the same channel, with the new token";
  EXPECT_EQ(jobs.jobs_size(), 1);
}

TEST_F(TokenLocalTest, AServerThatTakesNoTokensMakesNone) {
  const auto stub = v1::TokenService::NewStub(stubs_->channel);
  v1::ListTokensResponse tokens;
  EXPECT_THAT(Call(*stub, &v1::TokenService::Stub::ListTokens, v1::ListTokensRequest(), &tokens),
              FailsWith("TOKENS_NOT_TAKEN", HasSubstr("without tokens")));
}

// Every method that changes something leaves a line, and those that say what they are about leave
// its name.
TEST_F(TokenLocalTest, EachMethodThatChangesSomethingIsInTheAuditLog) {
  options_.audit_log = path("audit.jsonl");
  StartServer();
  std::set<std::string> expected;
  for (const std::string& method : MethodsOfTheApi()) {
    const std::vector<std::string> parts =
        absl::StrSplit(method.substr(sizeof("/lwq.v1.") - 1), '/');
    if (!IsAudited(parts[0], parts[1], kAdmin) || parts[1] == "DrainServer") continue;
    CallRaw(stubs_->channel, method);
    expected.insert(absl::StrCat(parts[0], ".", parts[1]));
  }
  v1::CancelJobRequest cancel;
  cancel.set_name("jobs/j-1");
  cancel.set_request_id("01234567-89ab-cdef-0123-456789abcdef");
  v1::Job job;
  EXPECT_THAT(Call(*stubs_->jobs, &v1::JobService::Stub::CancelJob, cancel, &job),
              FailsWith("NOT_FOUND", _));
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::BlobRef blob, WriteBlob(*stubs_, "some text"));
  v1::CreateDatasetRequest dataset;
  *dataset.mutable_dataset()->mutable_blob() = blob;
  dataset.mutable_dataset()->set_kind(v1::Dataset::TEXT);
  v1::Dataset made;
  ASSERT_OK(Call(*stubs_->datasets, &v1::DatasetService::Stub::CreateDataset, dataset, &made));

  std::map<std::string, int> lines;
  std::map<std::string, nlohmann::json> last;
  for (const nlohmann::json& line : LinesOf(path("audit.jsonl"))) {
    EXPECT_EQ(line["caller"], "local");
    ++lines[line["method"]];
    last[line["method"]] = line;
  }
  for (const std::string& method : expected) EXPECT_GE(lines[method], 1) << method;
  EXPECT_EQ(lines.size(), expected.size()) << "and nothing else";
  EXPECT_EQ(last["JobService.CancelJob"]["resource"], "jobs/j-1");
  EXPECT_EQ(last["JobService.CancelJob"]["request_id"], cancel.request_id());
  EXPECT_EQ(last["JobService.CancelJob"]["outcome"], "NOT_FOUND");
  EXPECT_EQ(last["BlobService.WriteBlob"]["resource"], "blobs/" + blob.sha256());
  EXPECT_EQ(last["DatasetService.CreateDataset"]["resource"], made.name());
}

}  // namespace
}  // namespace lwq::testing

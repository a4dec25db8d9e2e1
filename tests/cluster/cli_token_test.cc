// A server that lets callers in by tokens, over TLS, as other processes see it: lwqctl, a worker,
// and strangers that speak gRPC themselves.
#include <signal.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/rpc/channel.h"
#include "base/rpc/tls.h"
#include "base/rpc/token.h"
#include "client/process.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "proto/lwq/v1/admin_service.pb.h"
#include "proto/lwq/v1/artifact_service.pb.h"
#include "proto/lwq/v1/job_service.pb.h"
#include "proto/lwq/v1/model_service.pb.h"
#include "proto/lwq/v1/token_service.pb.h"
#include "proto/lwq/v1/worker_service.pb.h"
#include "tests/cluster/cli.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> MethodsOfTheApi() {
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

// What a server says to somebody who sends an empty message to a method.
struct Answer {
  grpc::Status status;
  bool has_data = false;
  std::string trailers;
};
Answer AskRaw(const std::shared_ptr<grpc::Channel>& channel, const std::string& method) {
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
  Answer answer;
  grpc::ByteBuffer data;
  call->Read(&data, nullptr);
  queue.Next(&tag, &answer.has_data);
  call->Finish(&answer.status, nullptr);
  queue.Next(&tag, &ok);
  for (const auto& [key, value] : context.GetServerTrailingMetadata()) {
    if (key == "grpc-status-details-bin") continue;  // the reason and the message once more
    absl::StrAppend(&answer.trailers, std::string(key.data(), key.size()), "=",
                    std::string(value.data(), value.size()), "\n");
  }
  return answer;
}

class CliTokenTest : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    if (IsSkipped()) return;
    if (::system("openssl version > /dev/null 2>&1") != 0) GTEST_SKIP() << "no openssl program";
    Shell(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "
        "/CN=lwq -addext subjectAltName=IP:127.0.0.1,DNS:localhost -keyout " +
        File("server.key") + " -out " + File("server.pem") + " 2> /dev/null");
    LWQ_ASSERT_OK_AND_ASSIGN(
        server_, client::StartProcess(
                     {.argv = {LWQ_BIN_DIR "/lwq-server", "--listen", "127.0.0.1:0", "--data-dir",
                               File("server"), "--ready-file", File("ready"), "--tls-cert",
                               File("server.pem"), "--tls-key", File("server.key"),
                               "--admin-token-file", File("admin.token"), "--log-level", "debug"},
                      .log_path = File("server.log"),
                      .die_with_parent = true}));
    WaitFor([&] { return FileExists(File("ready")); });
    const auto ready = Json(ReadFile(File("ready"), 1 << 20).value_or("{}"));
    address_ = ready.fields().at("address").string_value();
  }
  void TearDown() override {
    for (const pid_t process : {worker_, server_}) {
      if (process == 0) continue;
      ::kill(process, SIGTERM);
      ::waitpid(process, nullptr, 0);
    }
  }
  static void Shell(const std::string& line) { ASSERT_EQ(::system(line.c_str()), 0) << line; }
  template <typename Condition>
  static void WaitFor(const Condition& condition) {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (!condition() && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(20));
    EXPECT_TRUE(condition());
  }
  // As who has the token in that file of the test's; empty: without one.
  CliAnswer As(const std::string& token, const std::string& words) const {
    return Lwqctl(absl::StrCat(words, " --server ", address_, " --tls-ca ", File("server.pem"),
                               token.empty() ? "" : " --token-file " + File(token)));
  }
  // Makes a token and keeps it in a file; its name.
  std::string Make(const std::string& file, const std::string& words) const {
    const CliAnswer made = As("admin.token", "token create " + words);
    EXPECT_EQ(made.code, 0) << made.err;
    EXPECT_OK(WriteFileAtomically(File(file), made.out));
    return made.err.substr(0, made.err.find(':'));
  }

  pid_t server_ = 0, worker_ = 0;
  std::string address_;
};

TEST_F(CliTokenTest, AJobRunsWithTokensAloneAndEachRefusalIsSaid) {
  const std::string client = Make("client.token", "anna --role client");
  Make("worker.token", "w1 --role worker --days 1");
  const CliAnswer list = As("admin.token", "token list");
  EXPECT_THAT(list.out, HasSubstr(client));
  EXPECT_THAT(list.out, HasSubstr("anna"));

  LWQ_ASSERT_OK_AND_ASSIGN(
      worker_, client::StartProcess(
                   {.argv = {LWQ_BIN_DIR "/lwq-worker", "--server", address_, "--tls-ca",
                             File("server.pem"), "--token-file", File("worker.token"), "--work-dir",
                             File("work"), "--threads", "1", "--log-level", "debug"},
                    .log_path = File("worker.log"),
                    .die_with_parent = true}));
  const CliAnswer added = As("client.token", "model add " + SampleModelPath() + " --id sample");
  ASSERT_EQ(added.code, 0) << added.err;
  const CliAnswer submitted =
      As("client.token",
         "submit sample --budget 4.5bpw --method rtn --scorer lim --allocator two-level "
         "--calibration " +
             SampleModelPath() + "/held-out.txt --calibration-tokens 512 --no-eval");
  ASSERT_EQ(submitted.code, 0) << submitted.err;
  const std::string job(absl::StripAsciiWhitespace(submitted.out));
  const CliAnswer watched = As("client.token", "watch " + job);
  EXPECT_EQ(watched.code, 0) << watched.err;
  EXPECT_EQ(As("client.token", "artifact get jobs/" + job + " --out " + File("got")).code, 0);

  const auto refused = [&](const CliAnswer& answer, int code, const std::string& reason) {
    EXPECT_EQ(answer.code, code) << answer.err;
    EXPECT_THAT(answer.err, HasSubstr(reason));
    EXPECT_THAT(answer.out + answer.err, Not(HasSubstr(job))) << "nothing of what there is";
  };
  ASSERT_OK(WriteFileAtomically(File("wrong.token"), MakeTokenText("admin")));
  refused(As("", "jobs"), 4, "TOKEN_MISSING");
  refused(As("wrong.token", "jobs"), 4, "TOKEN_INVALID");
  refused(As("worker.token", "jobs"), 4, "ROLE_REQUIRED");
  refused(As("client.token", "token list"), 4, "ROLE_REQUIRED");
  refused(As("client.token", "gc"), 4, "ROLE_REQUIRED");
  refused(Lwqctl("jobs --server lwq.invalid:1 --token-file " + File("client.token")), 9,
          "TOKEN_IN_CLEAR");
  refused(Lwqctl("jobs --server " + address_ + " --token-file " + File("client.token")), 9,
          "it speaks TLS: give --tls-ca");
  EXPECT_EQ(As("admin.token", "token revoke " + client).code, 0);
  refused(As("client.token", "jobs"), 4, "TOKEN_REVOKED");
  EXPECT_THAT(As("admin.token", "token list --json").out, HasSubstr("revoke_time"));
}

TEST_F(CliTokenTest, AStrangerLearnsNothing) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto credentials,
                           ClientCredentials({.ca_file = File("server.pem")}));
  const auto channel = MakeChannel(address_, credentials);
  const std::vector<std::string> methods = MethodsOfTheApi();
  EXPECT_GE(methods.size(), 40);
  for (const std::string& method : methods) {
    const Answer answer = AskRaw(channel, method);
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNAUTHENTICATED) << method;
    EXPECT_EQ(answer.status.error_message(), "the caller shows neither a token nor a certificate")
        << method;
    EXPECT_EQ(answer.trailers, "lwq-reason=TOKEN_MISSING\n") << method;
    EXPECT_FALSE(answer.has_data) << method;
  }
  for (const char* method :
       {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.health.v1.Health/Check", "/lwq.v1.JobService/NoSuchMethod", "/"}) {
    const Answer answer = AskRaw(channel, method);
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << method;
    EXPECT_FALSE(answer.has_data) << method;
  }
}

// Neither the server's log, at its most talkative, nor what it keeps has the secret of a token.
TEST_F(CliTokenTest, SecretsAreNowhere) {
  Make("client.token", "anna --role client");
  ASSERT_EQ(As("client.token", "jobs").code, 0);
  As("client.token", "token list");
  std::vector<std::string> secrets;
  for (const char* file : {"client.token", "admin.token"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const std::string text, ReadTokenFile(File(file)));
    secrets.push_back(text.substr(text.size() - 43));
  }
  int num_files = 0;
  const auto look = [&](const std::string& path) {
    const std::string content = ReadFile(path, int64_t{1} << 30).value_or("");
    for (const std::string& secret : secrets) {
      EXPECT_EQ(content.find(secret), std::string::npos) << path;
    }
    ++num_files;
  };
  look(File("server.log"));
  for (const auto& entry : std::filesystem::recursive_directory_iterator(File("server"))) {
    if (entry.is_regular_file()) look(entry.path().string());
  }
  EXPECT_GE(num_files, 4) << "log, records, their journal, audit log";
  EXPECT_THAT(ReadFile(File("server/audit.jsonl"), 1 << 20).value_or(""),
              HasSubstr("TokenService.CreateToken"));
}

// What is set up wrongly does not mend itself: a worker that went on trying would look like one
// that waits for its server.
TEST_F(CliTokenTest, WhatIsWrongWithTlsIsSaidAndAWorkerEnds) {
  Make("worker.token", "w1 --role worker --days 1");
  Shell(
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "
      "/CN=other -keyout " +
      File("other.key") + " -out " + File("other.pem") + " 2> /dev/null");
  Shell("touch " + File("empty.pem"));
  const std::string other_name = "127.0.0.2" + address_.substr(address_.rfind(':'));
  const struct {
    std::string flags, said;
  } cases[] = {
      {"--server " + address_, "it speaks TLS: give --tls-ca"},
      {"--server " + address_ + " --tls-ca " + File("other.pem"), "not the one of --tls-ca"},
      {"--server " + address_ + " --tls-ca " + File("empty.pem"), "no PEM certificate"},
      {"--server " + address_ + " --tls-ca " + File("absent.pem"), "absent.pem"},
  };
  for (const auto& one : cases) {
    const CliAnswer asked = Lwqctl("jobs " + one.flags);
    EXPECT_EQ(asked.code, 9) << asked.err;
    EXPECT_THAT(asked.err, HasSubstr(one.said));
    const int status =
        ::system(absl::StrCat("timeout 60 " LWQ_BIN_DIR "/lwq-worker ", one.flags, " --work-dir ",
                              File("work"), " --threads 1 >", File("worker.out"), " 2>&1")
                     .c_str());
    EXPECT_EQ(WEXITSTATUS(status), 78) << one.flags;
    EXPECT_THAT(ReadFile(File("worker.out"), 1 << 20).value_or(""), HasSubstr(one.said));
  }
}

}  // namespace
}  // namespace lwq::testing

// The service commands of lwqctl over the real server and worker.
#include <signal.h>

#include "absl/strings/ascii.h"
#include "absl/time/clock.h"
#include "client/process.h"
#include "gmock/gmock.h"
#include "tests/cluster/cli.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class CliServiceTest : public CliTest {};

TEST_F(CliServiceTest, AddPlanSubmitWatchGet) {
  ASSERT_EQ(Lwqctl("up --threads 1").code, 0);
  const CliAnswer added = Lwqctl("model add " + SampleModelPath() + " --id sample");
  ASSERT_EQ(added.code, 0) << added.err;
  EXPECT_THAT(added.out, HasSubstr("ACTIVE"));
  EXPECT_THAT(Lwqctl("model list").out, HasSubstr("sample"));
  const std::string spec =
      "sample --budget 4.5bpw --method rtn --scorer lim --allocator two-level"
      " --calibration " +
      SampleModelPath() + "/held-out.txt --calibration-tokens 512 --no-eval";
  const CliAnswer plan = Lwqctl("plan " + spec);
  EXPECT_EQ(plan.code, 0) << plan.err;
  EXPECT_THAT(plan.out, AllOf(HasSubstr("smallest plan"), HasSubstr("bytes of linears alone")));
  const CliAnswer submitted = Lwqctl("submit " + spec);
  ASSERT_EQ(submitted.code, 0) << submitted.err;
  const std::string job(absl::StripAsciiWhitespace(submitted.out));
  const CliAnswer watched = Lwqctl("watch " + job);
  EXPECT_EQ(watched.code, 0) << watched.err;
  EXPECT_THAT(watched.err, HasSubstr("-> SUCCEEDED"));
  EXPECT_THAT(Lwqctl("jobs --state succeeded").out, HasSubstr(job));
  EXPECT_THAT(Lwqctl("show " + job).out, HasSubstr("SUCCEEDED"));
  EXPECT_THAT(Lwqctl("tasks " + job).out, HasSubstr("quantize"));
  EXPECT_THAT(Lwqctl("workers").out, HasSubstr("embedded"));
  EXPECT_EQ(Json(Lwqctl("server info --json").out).fields().count("version"), 1u);
  const CliAnswer got = Lwqctl("artifact get jobs/" + job + " --out " + File("got"));
  EXPECT_EQ(got.code, 0) << got.err;
  EXPECT_TRUE(FileExists(File("got/model.safetensors")));
  EXPECT_FALSE(FileExists(File("got.partial")));
}

TEST_F(CliServiceTest, AWorkerWaitsForAServerThatIsStoppedAndStartedAgain) {
  ASSERT_EQ(Lwqctl("up --threads 1").code, 0);
  ASSERT_EQ(Lwqctl("model add " + SampleModelPath()).code, 0);  // by the worker, which then idles
  const pid_t server = FindChild("lwq-server");
  const pid_t worker = FindChild("lwq-worker");
  ASSERT_GT(server, 0);
  ASSERT_GT(worker, 0);
  ASSERT_EQ(::kill(server, SIGTERM), 0);
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  pid_t next = server;
  while ((next == server || next == 0) && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(20));
    next = FindChild("lwq-server");
  }
  EXPECT_NE(next, server);
  const CliAnswer answer = Lwqctl(QuickQuantize("out"));
  EXPECT_EQ(answer.code, 0) << answer.err;
  EXPECT_EQ(FindChild("lwq-worker"), worker);
}

TEST_F(CliServiceTest, TablesArePrintedAgainWhenTheyChange) {
  ASSERT_EQ(Lwqctl("up --threads 1").code, 0);
  EXPECT_EQ(Lwqctl("workers --watch -o yaml").code, 2);
  std::FILE* watch = ::popen(Line("workers --watch --timeout 60", "watch").c_str(), "r");
  ASSERT_NE(watch, nullptr);
  const absl::Time deadline = absl::Now() + absl::Seconds(50);
  const auto seen = [&](const std::string& text) {
    while (Read(0, "watch").out.find(text) == std::string::npos && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(50));
    }
    return Read(0, "watch").out.find(text) != std::string::npos;
  };
  EXPECT_TRUE(seen("READY"));
  EXPECT_EQ(Lwqctl("worker cordon embedded").code, 0);
  EXPECT_TRUE(seen("READY, cordoned"));
  ASSERT_EQ(Lwqctl("down --force").code, 0);  // which ends what watches
  ::pclose(watch);
}

TEST_F(CliServiceTest, AWorkerIsDrainedAndTakenBackIntoService) {
  ASSERT_EQ(Lwqctl("up --threads 1").code, 0);
  EXPECT_EQ(Lwqctl("worker drain nobody").code, 3);
  EXPECT_EQ(Lwqctl("worker cordon embedded --wait").code, 2);
  const CliAnswer drained = Lwqctl("worker drain embedded --wait");
  EXPECT_EQ(drained.code, 0) << drained.err;
  EXPECT_EQ(drained.out, "embedded cordoned, has no task\n");
  EXPECT_THAT(Lwqctl("workers").out, HasSubstr("READY, cordoned"));
  EXPECT_EQ(Lwqctl("worker uncordon embedded").out, "embedded open\n");
  EXPECT_THAT(Lwqctl("workers").out, Not(HasSubstr("cordoned")));
}

// A backup is taken while a job runs; then all is lost and restored. What was there is there, and
// the job goes on.
TEST_F(CliServiceTest, WhatWasBackedUpUnderLoadIsThereAfterALoss) {
  ASSERT_EQ(Lwqctl("up --threads 1").code, 0);
  ASSERT_EQ(Lwqctl("model add " + SampleModelPath() + " --id sample").code, 0);
  const std::string spec =
      "submit sample --method rtn --scorer lim --allocator two-level --no-eval --calibration " +
      SampleModelPath() + "/held-out.txt --calibration-tokens 512 --budget ";
  const std::string first(absl::StripAsciiWhitespace(Lwqctl(spec + "4.5bpw").out));
  ASSERT_EQ(Lwqctl("watch " + first).code, 0);
  ASSERT_EQ(Lwqctl("artifact get jobs/" + first + " --out " + File("before")).code, 0);
  const std::string second(absl::StripAsciiWhitespace(Lwqctl(spec + "6bpw").out));
  const CliAnswer backed_up = Lwqctl("backup " + File("backup") + " --json");
  ASSERT_EQ(backed_up.code, 0) << backed_up.err;
  EXPECT_GT(Number(Json(backed_up.out), "blobs"), 10);
  EXPECT_EQ(Lwqctl("backup " + File("backup")).code, 8);
  EXPECT_EQ(Lwqctl("restore " + File("backup")).code, 8);
  EXPECT_EQ(Lwqctl("backup " + File("elsewhere") + " --server localhost:1").code, 2);

  ASSERT_EQ(Lwqctl("down --force").code, 0);
  ASSERT_OK(RemoveAll(data()));
  const CliAnswer restored = Lwqctl("restore " + File("backup"));
  ASSERT_EQ(restored.code, 0) << restored.err;
  ASSERT_EQ(Lwqctl("up --threads 1").code, 0);
  const CliAnswer got = Lwqctl("artifact get jobs/" + first + " --out " + File("after"));
  ASSERT_EQ(got.code, 0) << got.err;
  EXPECT_EQ(*ReadFile(File("after/model.safetensors"), 1 << 30),
            *ReadFile(File("before/model.safetensors"), 1 << 30));
  EXPECT_EQ(Lwqctl("watch " + second).code, 0);
}

TEST_F(CliServiceTest, ModelAddSaysThatThereIsNoWorker) {
  const std::string address = "unix:" + File("s");
  LWQ_ASSERT_OK_AND_ASSIGN(
      const pid_t server,
      client::StartProcess({.argv = {LWQ_BIN_DIR "/lwq-server", "--listen", address, "--data-dir",
                                     File("server"), "--ready-file", File("ready")},
                            .log_path = File("server.log"),
                            .die_with_parent = true}));
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (!FileExists(File("ready")) && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  const CliAnswer answer =
      Lwqctl("model add " + SampleModelPath() + " --timeout 1 --server " + address);
  EXPECT_EQ(answer.code, 6);
  EXPECT_THAT(answer.err, HasSubstr("no worker is connected"));
  // A path of the server's machine: it is the server that looks, and lets a worker look.
  const CliAnswer elsewhere = Lwqctl("model add /models/not-here --timeout 1 --server " + address);
  EXPECT_THAT(elsewhere.err, Not(HasSubstr("there is no model directory")));
  EXPECT_EQ(::kill(server, SIGTERM), 0);
  EXPECT_EQ(::waitpid(server, nullptr, 0), server);
}

TEST_F(CliServiceTest, AWrongServerIsSaidWithItsCause) {
  const CliAnswer refused = Lwqctl("jobs --server 127.0.0.1:1");
  EXPECT_EQ(refused.code, 5) << refused.err;
  EXPECT_THAT(refused.err, HasSubstr("Connection refused"));
  const CliAnswer cut = Lwqctl("jobs --server 127.0.0.1:1 --timeout 1");
  EXPECT_THAT(cut.err, HasSubstr("Connection refused")) << "not only that the time is over";
  EXPECT_THAT(Lwqctl("jobs --server http://localhost:7421").err, HasSubstr("ADDRESS_INVALID"));
}

TEST_F(CliServiceTest, UnknownNamesHaveTheirExitCode) {
  ASSERT_EQ(Lwqctl("up --threads 1").code, 0);
  EXPECT_EQ(Lwqctl("show no-such-job").code, 3);
  EXPECT_EQ(Lwqctl("model show no-such-model").code, 3);
  EXPECT_EQ(Lwqctl("submit no-such-model --budget 4bpw").code, 3);
  EXPECT_EQ(Lwqctl("model add " + File("nowhere")).code, 3);
}

TEST_F(CliServiceTest, ADatasetIsSentListedUsedAndRemoved) {
  ASSERT_EQ(Lwqctl("up --threads 1").code, 0);
  ASSERT_EQ(Lwqctl("dataset add " + SampleModelPath() + "/held-out.txt --id mine").out, "mine\n");
  EXPECT_THAT(Lwqctl("dataset list").out, AllOf(HasSubstr("mine"), HasSubstr("held-out.txt")));
  ASSERT_EQ(Lwqctl("model add " + SampleModelPath() + " --id sample").code, 0);
  const CliAnswer submitted = Lwqctl(
      "submit sample --budget 4.5bpw --method rtn --scorer lim --allocator two-level"
      " --calibration datasets/mine --calibration-tokens 512 --no-eval");
  ASSERT_EQ(submitted.code, 0) << submitted.err;
  const std::string job(absl::StripAsciiWhitespace(submitted.out));
  const CliAnswer refused = Lwqctl("dataset remove mine");
  EXPECT_EQ(refused.code, 8) << refused.err;
  EXPECT_THAT(refused.err, AllOf(HasSubstr("DATASET_IN_USE"), HasSubstr(job)));
  EXPECT_EQ(Lwqctl("watch " + job).code, 0);
  EXPECT_EQ(Lwqctl("dataset remove mine").out, "removed\n");
  EXPECT_THAT(Lwqctl("dataset list").out, Not(HasSubstr("mine")));
  const CliAnswer again = Lwqctl("dataset remove mine");
  EXPECT_EQ(again.code, 3);
  EXPECT_THAT(again.err, HasSubstr("lwqctl dataset list"));
}

TEST_F(CliServiceTest, EvaluatesAModelWhereItLies) {
  const CliAnswer answer = Lwqctl("eval " + SampleModelPath() + " --text " + SampleModelPath() +
                                  "/held-out.txt --tasks " + SampleModelPath() +
                                  "/choices.jsonl --tokens 1024 --limit 8 --threads 1");
  ASSERT_EQ(answer.code, 0) << answer.err;
  EXPECT_THAT(answer.out, HasSubstr("perplexity per token, held-out.txt"));
  EXPECT_THAT(answer.out, HasSubstr("accuracy, choices.jsonl (8 items)"));
}

}  // namespace
}  // namespace lwq::testing

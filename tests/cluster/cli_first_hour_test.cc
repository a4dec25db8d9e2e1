// What a person types in the first hour, over the real server and worker: what is wrong, how long
// it takes, what happens, in the forms that people and programs read.
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "nlohmann/json.hpp"
#include "tests/cluster/cli.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class CliFirstHourTest : public CliTest {
 protected:
  std::string SubmitQuick() {
    EXPECT_EQ(Lwqctl("up --threads 1").code, 0);
    EXPECT_EQ(Lwqctl("model add " + SampleModelPath() + " --id sample").code, 0);
    const CliAnswer submitted = Lwqctl(
        "submit sample --budget 4.5bpw --method rtn --scorer lim --allocator two-level"
        " --calibration-tokens 512 --no-eval");
    EXPECT_EQ(submitted.code, 0) << submitted.err;
    EXPECT_THAT(submitted.err, HasSubstr("expected: ")) << "how long it takes, beside the name";
    return std::string(absl::StripAsciiWhitespace(submitted.out));
  }
};

TEST_F(CliFirstHourTest, AnAnswerThatCannotBeWrittenIsAnError) {
  const std::string full =
      absl::StrCat(LWQ_BIN_DIR "/lwqctl version >/dev/full 2>", File("full.err"));
  EXPECT_EQ(WEXITSTATUS(::system(full.c_str())), 7);
  EXPECT_THAT(Read(7, "full").err, HasSubstr("writing the answer failed"));
  const CliAnswer unknown = Lwqctl("help bogus");
  EXPECT_EQ(unknown.code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("no command \"bogus\""));
}

TEST_F(CliFirstHourTest, DoctorWithoutAServerAndWithABadModel) {
  const CliAnswer good = Lwqctl("doctor " + SampleModelPath());
  EXPECT_THAT(good.out,
              AllOf(HasSubstr("processor"), HasSubstr("none runs"), HasSubstr("tokenizer")));
  ASSERT_OK(MakeDirectories(File("empty")));
  const CliAnswer bad = Lwqctl("doctor " + File("empty") + " --json");
  EXPECT_EQ(bad.code, 1);
  const auto findings = nlohmann::json::parse(bad.out);
  EXPECT_EQ(findings.back()["area"], "model");
  EXPECT_EQ(findings.back()["state"], "fail");
  EXPECT_THAT(Lwqctl("doctor --server 127.0.0.1:1").out, HasSubstr("Connection refused"));
}

TEST_F(CliFirstHourTest, PlanOfADirectoryNeedsNoServerAndSaysHowLong) {
  const CliAnswer plan = Lwqctl("plan " + SampleModelPath() + " --budget 3.25bpw --json");
  ASSERT_EQ(plan.code, 0) << plan.err;
  const auto json = nlohmann::json::parse(plan.out);
  EXPECT_GT(json["work"]["operations"].get<double>(), 1e9);
  EXPECT_GT(json["work"]["seconds"].get<double>(), 0);
  EXPECT_GE(json["work"]["phases"].size(), 7u);
}

TEST_F(CliFirstHourTest, AJobCanBeFollowedFromSubmissionToArtifact) {
  const std::string job = SubmitQuick();
  const CliAnswer followed = Lwqctl("logs " + job + " --follow");
  EXPECT_EQ(followed.code, 0) << followed.err;
  const CliAnswer again = Lwqctl("logs " + job);
  EXPECT_EQ(again.out, followed.out) << "the same from the first event on, however it is asked";
  EXPECT_THAT(again.out,
              AllOf(HasSubstr("job  - -> QUEUED"), HasSubstr("quantize layer 0  done in"),
                    HasSubstr("RUNNING -> SUCCEEDED: artifacts/" + job)));
  // Server and worker name the job and its tasks in their logs.
  for (const char* log : {"run/server.log", "run/worker.log"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(JoinPath(data(), log), 1 << 24));
    EXPECT_THAT(text, AllOf(HasSubstr("kind=quantize layer=0"), HasSubstr("job=" + job))) << log;
  }
  EXPECT_THAT(Lwqctl("explain " + job).out, HasSubstr("lwqctl artifact get jobs/" + job));
  EXPECT_THAT(Lwqctl("top").out, AllOf(HasSubstr("0 jobs active"), HasSubstr("embedded")));
  EXPECT_THAT(Lwqctl("artifact diff jobs/" + job + " jobs/" + job).out,
              HasSubstr("the same format in both"));
  ASSERT_EQ(Lwqctl("delete artifact " + job).code, 0);
  EXPECT_THAT(Lwqctl("artifact get jobs/" + job + " --out " + File("o")).err,
              AllOf(HasSubstr("was deleted"), Not(HasSubstr("wait"))));
  const CliAnswer shown = Lwqctl("show " + job + " --json");
  EXPECT_GT(nlohmann::json::parse(shown.out)["work"]["operations"].get<double>(), 0);
}

TEST_F(CliFirstHourTest, FormsOfOutput) {
  const std::string job = SubmitQuick();
  ASSERT_EQ(Lwqctl("watch " + job).code, 0);
  EXPECT_EQ(Lwqctl("jobs -o name").out, job + "\n");
  EXPECT_EQ(Lwqctl("model list -o name").out, "sample\n");
  EXPECT_THAT(Lwqctl("jobs -o yaml").out,
              AllOf(HasSubstr("jobs:\n  - name: jobs/" + job), HasSubstr("state: SUCCEEDED")));
  EXPECT_THAT(Lwqctl("workers -o wide").out, HasSubstr("NUMERICS"));
  EXPECT_THAT(Lwqctl("workers").out, Not(HasSubstr("NUMERICS")));
  EXPECT_THAT(Lwqctl("tasks " + job + " --json").out, HasSubstr("\"layer\": 0"));
  const CliAnswer absent = Lwqctl("show no-such-job --json");
  EXPECT_EQ(absent.code, 3);
  EXPECT_EQ(nlohmann::json::parse(absent.err)["error"]["reason"], "NOT_FOUND");
  EXPECT_EQ(Lwqctl("jobs -o neither").code, 2);
}

TEST_F(CliFirstHourTest, WhatCannotWorkIsSaidBeforeTheWork) {
  ASSERT_OK(WriteFileAtomically(File("file"), "x"));
  const std::string below =
      absl::StrCat("quantize ", SampleModelPath(), " --budget 4.5bpw --out ", File("file/below"));
  EXPECT_EQ(Lwqctl(below).code, 4);
  const std::string text = SampleModelPath() + "/held-out.txt";
  const std::string choices = SampleModelPath() + "/choices.jsonl";
  EXPECT_EQ(Lwqctl("eval " + SampleModelPath() + " --text " + choices).code, 2);
  EXPECT_EQ(Lwqctl("eval " + SampleModelPath() + " --tasks " + text).code, 2);
  EXPECT_THAT(Lwqctl("quantize no-such-dir --budget 4bpw --out " + File("o")).err,
              HasSubstr("hf://ORGANIZATION/NAME"));
  ASSERT_OK(MakeDirectories(File("empty")));
  EXPECT_THAT(Lwqctl("quantize " + File("empty") + " --budget 4bpw --out " + File("o")).err,
              AllOf(HasSubstr("MODEL_NOT_FOUND"), HasSubstr("has no config.json")));
}

}  // namespace
}  // namespace lwq::testing

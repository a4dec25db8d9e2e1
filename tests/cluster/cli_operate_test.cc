// What an operator's first quarter of an hour is made of: lines as kubectl and docker take them,
// pipes, completion, and what is said when something is wrong.
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "tests/cluster/cli.h"
#include "tests/testing/mute_port.h"
#include "tests/testing/small_disk.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

class CliOperateTest : public CliTest {
 protected:
  // What bash completes behind `line`.
  std::string Completed(const std::string& line) const {
    const std::string script =
        absl::StrCat("source <(" LWQ_BIN_DIR
                     "/lwqctl completion bash)\n"
                     "COMP_LINE='",
                     line,
                     "'; COMP_POINT=${#COMP_LINE}; read -ra COMP_WORDS <<< \"$COMP_LINE\"\n"
                     "[[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')\n"
                     "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _lwqctl; echo \"${COMPREPLY[@]}\"\n");
    EXPECT_OK(WriteFileAtomically(File("script"), script));
    EXPECT_EQ(
        ::system(absl::StrCat("cd ", directory_.path(), " && bash script > completed").c_str()), 0);
    return std::string(
        absl::StripAsciiWhitespace(ReadFile(File("completed"), 1 << 20).value_or("")));
  }
  std::string Program() const { return LWQ_BIN_DIR "/lwqctl"; }
};

TEST_F(CliOperateTest, FlagsOfEveryCommandMayStandBeforeIt) {
  ASSERT_EQ(Lwqctl("up --threads 1").code, 0);
  EXPECT_EQ(Lwqctl("-o name --timeout 60 workers").out, "embedded\n");
  EXPECT_THAT(Lwqctl("--json --timeout=60 workers").out, HasSubstr("\"workers\""));
  EXPECT_THAT(Lwqctl("--json help workers").out, HasSubstr("Flags of every command"));
  EXPECT_THAT(Lwqctl("--timeout 60 --help").out, HasSubstr("Commands:"));
  EXPECT_THAT(Lwqctl("--help --json").out, HasSubstr("Commands:"));
  const CliAnswer other = Lwqctl("--wait worker drain embedded");
  EXPECT_EQ(other.code, 2);
  EXPECT_THAT(other.err, HasSubstr("flags that every command takes"));
}

// bash expands the words that it is given to complete from.
TEST_F(CliOperateTest, WhatIsCompletedFromSaysNothingToAShell) {
  ASSERT_EQ(::mkdir(File("lwq").c_str(), 0700), 0);
  ASSERT_OK(WriteFileAtomically(File("lwq/contexts.json"), R"json({"contexts": {
    "good": {"server": "localhost:1"}, "$(touch${IFS}pwned)": {"server": "localhost:1"},
    "`touch${IFS}pwned`": {"server": "localhost:1"}}})json"));
  ASSERT_EQ(::setenv("XDG_CONFIG_HOME", directory_.path().c_str(), 1), 0);
  const std::string completed = Completed(Program() + " context use ");
  ::unsetenv("XDG_CONFIG_HOME");
  EXPECT_EQ(completed, "local good");
  EXPECT_FALSE(FileExists(File("pwned")));
}

TEST_F(CliOperateTest, JobsTasksAndDifferencesByName) {
  ASSERT_EQ(Lwqctl("up --threads 1").code, 0);
  const CliAnswer made = Lwqctl(QuickQuantize("out"));
  ASSERT_EQ(made.code, 0) << made.err;
  const std::string job(absl::StripAsciiWhitespace(Lwqctl("jobs -o name").out));
  const std::vector<std::string> tasks =
      absl::StrSplit(Lwqctl("tasks " + job + " -o name").out, '\n', absl::SkipEmpty());
  // The hash of what they do, of all but the server's own.
  EXPECT_THAT(tasks, AllOf(SizeIs(Gt(12u)), Contains(SizeIs(64))));
  EXPECT_THAT(tasks, Contains(StartsWith("plan-")));

  // A name may be cut where one job alone begins so, but for what changes something.
  EXPECT_THAT(Lwqctl("show j- --json").out, HasSubstr(job));
  EXPECT_THAT(Lwqctl("explain " + job.substr(0, 8)).out, HasSubstr("SUCCEEDED"));
  EXPECT_EQ(Lwqctl("show k").code, 3);
  EXPECT_EQ(Lwqctl("delete job j").code, 3);

  EXPECT_EQ(Completed(Program() + " --data-dir " + data() + " show "), job);
  EXPECT_EQ(Completed(Program() + " worker drain --data-dir " + data() + " "), "embedded");
  EXPECT_EQ(Completed(Program() + " worker dr"), "drain");
  EXPECT_EQ(Completed(Program() + " --timeout 3 expl"), "explain");
  EXPECT_EQ(Completed(Program() + " jobs --state RUN"), "RUNNING");

  const std::string here = absl::StrCat("diff ", File("out"), " ");
  EXPECT_THAT(Lwqctl(here + "jobs/" + job).out, HasSubstr("every unit has the same format"));
  ASSERT_EQ(Lwqctl("down").code, 0);
  const CliAnswer alone = Lwqctl(here + File("out"));
  EXPECT_EQ(alone.code, 0) << alone.err;
  EXPECT_THAT(alone.out, HasSubstr("every unit has the same format"));
  EXPECT_THAT(Lwqctl("artifact " + here + File("out") + " --json").out, HasSubstr("\"units\""));
  // What is damaged is not made an artifact that says it is whole.
  const std::string convert =
      absl::StrCat("artifact convert ", File("out"), " --format gptq --out ");
  {
    ASSERT_OK(MakeDirectories(File("disk")));
    const SmallDisk disk(File("disk"), 1 << 20);
    const CliAnswer full = Lwqctl(convert + File("disk/gptq"));
    if (disk.mounted()) {
      EXPECT_EQ(full.code, 7) << full.err;
      EXPECT_THAT(full.err, HasSubstr("STORAGE_FULL: the disk of " + File("disk")));
    }
  }
  std::filesystem::resize_file(File("out/model.safetensors"), 1000);
  const CliAnswer damaged = Lwqctl(convert + File("gptq"));
  EXPECT_EQ(damaged.code, 10);
  EXPECT_THAT(damaged.err, AllOf(HasSubstr("VERIFY_MISMATCH"), HasSubstr("get them again")));
  EXPECT_FALSE(FileExists(File("gptq")));
  // Nobody to ask: what a shell completes anyway.
  EXPECT_THAT(Completed(Program() + " --data-dir " + data() + " show an"), HasSubstr("answer"));
}

TEST_F(CliOperateTest, APipeGetsNothingForAgesThatPass) {
  ASSERT_EQ(Lwqctl("up --threads 1").code, 0);
  const CliAnswer watched = Lwqctl("workers --watch --timeout 9");
  EXPECT_EQ(watched.code, 6);
  const std::vector<std::string> tables = absl::StrSplit(watched.out, "NAME ");
  EXPECT_EQ(tables.size(), 2u) << watched.out;
}

TEST_F(CliOperateTest, AdviceIsOfTheCommand) {
  ASSERT_EQ(Lwqctl("up --threads 1").code, 0);
  EXPECT_THAT(Lwqctl("worker drain nobody").err,
              AllOf(HasSubstr("lwqctl workers"), Not(HasSubstr("dataset list"))));
  EXPECT_THAT(Lwqctl("artifact get a --out " + File("x")).err, HasSubstr("lwqctl artifact list"));
  ASSERT_EQ(Lwqctl("backup " + File("backup")).code, 0);
  EXPECT_THAT(Lwqctl("backup " + File("backup")).err,
              AllOf(HasSubstr("new or empty"), Not(HasSubstr("--out"))));
  EXPECT_THAT(Lwqctl("backup " + File("backup") + " --json").err, Not(HasSubstr("--out")));
  EXPECT_THAT(Lwqctl("restore " + File("backup")).err, HasSubstr("give a --data-dir"));
  EXPECT_THAT(Lwqctl("restore " + File("nowhere")).err, HasSubstr("check the path"));
}

TEST_F(CliOperateTest, AnAddressThatSaysNothingIsToldFromOneThatRefuses) {
  const MutePort mute;
  const CliAnswer answer = Lwqctl("jobs --server " + mute.address());
  EXPECT_EQ(answer.code, 5) << answer.err;
  EXPECT_THAT(answer.err, HasSubstr("takes connections and says nothing"));
}

}  // namespace
}  // namespace lwq::testing

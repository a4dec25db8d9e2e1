// lwqctl quantize over the real server and worker.
#include <signal.h>
#include <sys/types.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/hash.h"
#include "gmock/gmock.h"
#include "tests/cluster/cli.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ContainsRegex;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

class CliQuantizeTest : public CliTest {
 protected:
  // The digests of every file but the reports, which hold times.
  std::map<std::string, std::string> Digests(const std::string& out) const {
    std::map<std::string, std::string> digests;
    for (const std::string& name : ListDirectory(File(out)).value_or(std::vector<std::string>())) {
      if (name.rfind("lwq-", 0) == 0 || name == "README.md") continue;  // they name their job
      digests[name] = Sha256HexOfFile(JoinPath(File(out), name)).value_or("unreadable");
    }
    return digests;
  }

  // Three lines on stderr at the end, no DIR, nothing beside it.
  void ExpectRefused(const CliAnswer& answer, const std::string& reason) const {
    EXPECT_GT(answer.code, 0) << answer.out;
    EXPECT_THAT(answer.err, HasSubstr("lwqctl: "));
    EXPECT_THAT(answer.err, HasSubstr(reason));
    EXPECT_THAT(answer.err, HasSubstr("\n  do: "));
    EXPECT_FALSE(FileExists(File("out")));
    EXPECT_FALSE(FileExists(File("out.partial")));
  }

  // Kills the program once the running quantize has finished some tasks; whether it was there.
  bool KillDuringJob(const std::string& program) const {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (absl::Now() < deadline) {
      const std::string progress = ReadFile(File("run.err"), 1 << 20).value_or("");
      const pid_t pid = FindChild(program);
      if (pid > 0 && progress.find(": done in") != std::string::npos) {
        return ::kill(pid, SIGKILL) == 0;
      }
      absl::SleepFor(absl::Milliseconds(2));
    }
    return false;
  }
};

TEST_F(CliQuantizeTest, OneCommandGivesAnArtifactAndASecondOneTheSameFromTheCache) {
  const CliAnswer first = Lwqctl(QuickQuantize("out"));
  ASSERT_EQ(first.code, 0) << first.err;
  const google::protobuf::Struct result = Json(first.out);
  EXPECT_EQ(result.fields().at("directory").string_value(), File("out"));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::vector<std::string> names, ListDirectory(File("out")));
  EXPECT_THAT(names, Contains("config.json"));
  EXPECT_THAT(names, Contains("lwq-manifest.json"));
  EXPECT_THAT(names, Contains("lwq-report.json"));
  EXPECT_THAT(names, Not(Contains(EndsWith(".partial"))));
  LWQ_ASSERT_OK_AND_ASSIGN(const int64_t size, FileSize(File("out/model.safetensors")));
  EXPECT_EQ(static_cast<double>(size), Number(result, "weight_file_bytes"));
  // Nothing runs any more, and nothing is left half done.
  EXPECT_EQ(Lwqctl("down").code, 3);
  EXPECT_THAT(*ListDirectory(File("data/downloads")), ::testing::IsEmpty());

  const CliAnswer second = Lwqctl(QuickQuantize("again"));
  ASSERT_EQ(second.code, 0) << second.err;
  EXPECT_EQ(Digests("again"), Digests("out"));
  const CliAnswer quantized = Lwqctl(absl::StrCat("plan ", File("out"), " --budget 3bpw"));
  EXPECT_THAT(quantized.err,
              AllOf(HasSubstr("QUANT_METHOD_UNSUPPORTED"), HasSubstr("is quantized already")));
}

TEST_F(CliQuantizeTest, AJobSaysHowGoodItsModelIsWithoutBeingAsked) {
  const std::string asked =
      absl::StrReplaceAll(QuickQuantize("out"), {{"--no-eval --json", "--eval-tokens 512"}});
  const CliAnswer answer = Lwqctl(asked);
  ASSERT_EQ(answer.code, 0) << answer.err;
  EXPECT_THAT(answer.out, HasSubstr("built-in text"));
  EXPECT_THAT(answer.out, HasSubstr("perplexity"));
  EXPECT_THAT(answer.out, HasSubstr("KL"));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string card, ReadFile(File("out/README.md"), 1 << 20));
  EXPECT_THAT(card, HasSubstr("built-in text"));
}

TEST_F(CliQuantizeTest, ForLlamaCppTheArtifactIsOneFileOfTheForecastSize) {
  const std::string call = absl::StrCat(
      "quantize ", SampleModelPath(), " --for llama.cpp --budget Q4_K_M --method rtn",
      " --scorer weight-error --allocator knapsack --formats gguf-q4_0,gguf-q8_0 --calibration ",
      SampleModelPath(), "/held-out.txt --calibration-tokens 512 --threads 2 --no-eval --json");
  const CliAnswer first = Lwqctl(absl::StrCat(call, " --out ", File("m.gguf")));
  ASSERT_EQ(first.code, 0) << first.err;
  LWQ_ASSERT_OK_AND_ASSIGN(const int64_t size, FileSize(File("m.gguf")));
  EXPECT_EQ(static_cast<double>(size), Number(Json(first.out), "weight_file_bytes"));
  EXPECT_LE(size, 6'648'064);  // llama.cpp's own file of that recipe
  EXPECT_GT(size, 6'000'000);
  EXPECT_EQ(Lwqctl("artifact verify " + File("m.gguf")).code, 0);
  EXPECT_EQ(Lwqctl(absl::StrCat(call, " --out ", File("m.gguf"))).code, 8) << "it exists";
  // A directory is an output too, and the same bytes.
  ASSERT_EQ(Lwqctl(absl::StrCat(call, " --no-cache --out ", File("dir"))).code, 0);
  EXPECT_EQ(*Sha256HexOfFile(File("dir/model.gguf")), *Sha256HexOfFile(File("m.gguf")));
  EXPECT_EQ(Lwqctl("artifact verify " + File("dir")).code, 0);
  // As a source it is warned of: by its tensors' types where it lies, and by its size.
  EXPECT_THAT(Lwqctl("doctor " + File("m.gguf")).out,
              ContainsRegex("quantized already: tensors are [0-9]+ in Q4_0, [0-9]+ in Q8_0"));
  EXPECT_THAT(Lwqctl("plan " + File("m.gguf") + " --budget 8bpw --method rtn").out,
              AllOf(HasSubstr("it is quantized already"), HasSubstr("more than the source's")));
  EXPECT_THAT(Lwqctl("artifact convert " + File("m.gguf") + " --format gptq --out o").err,
              HasSubstr("of GGUF files no other kind is made"));
}

TEST_F(CliQuantizeTest, AFileAsOutputNeedsAFormatThatIsOne) {
  const CliAnswer answer = Lwqctl(absl::StrCat("quantize ", SampleModelPath(),
                                               " --budget 4bpw --no-eval --out ", File("m.gguf")));
  ExpectRefused(answer, "--for llama.cpp");
}

TEST_F(CliQuantizeTest, AKilledWorkerAndAKilledServerChangeNothing) {
  ASSERT_EQ(Lwqctl(QuickQuantize("out")).code, 0);
  for (const std::string program : {"lwq-worker", "lwq-server"}) {
    std::FILE* run = ::popen(Line(QuickQuantize("killed") + " --no-cache", "run").c_str(), "r");
    ASSERT_NE(run, nullptr);
    EXPECT_TRUE(KillDuringJob(program)) << program;
    const int code = WEXITSTATUS(::pclose(run));
    EXPECT_EQ(code, 0) << program << "\n" << Read(code, "run").err;
    EXPECT_EQ(Digests("killed"), Digests("out")) << program;
    ASSERT_OK(RemoveAll(File("killed")));
    ASSERT_OK(RemoveAll(File("run.err")));
  }
}

// Two commands that ask for the same share a job. Ctrl-C in one is not the end of the other's.
// The job of before stands, and its artifact does not: the command makes it again.
TEST_F(CliQuantizeTest, AnArtifactThatTheServerHasLostIsMadeAgain) {
  ASSERT_EQ(Lwqctl("up --threads 1").code, 0);
  ASSERT_EQ(Lwqctl(QuickQuantize("first")).code, 0);
  int damaged = 0;
  const int64_t size = FileSize(File("first/model.safetensors")).value_or(0);
  for (const auto& file : std::filesystem::recursive_directory_iterator(data() + "/server/blobs")) {
    if (!file.is_regular_file() || static_cast<int64_t>(file.file_size()) != size) continue;
    std::filesystem::permissions(file, std::filesystem::perms::owner_write,
                                 std::filesystem::perm_options::add);
    std::fstream blob(file.path(), std::ios::in | std::ios::out | std::ios::binary);
    blob.seekp(size / 2);
    blob.write("damaged", 7);
    ++damaged;
  }
  ASSERT_EQ(damaged, 1);
  const CliAnswer again = Lwqctl(QuickQuantize("second"));
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.err, HasSubstr("made again"));
  EXPECT_EQ(Digests("second"), Digests("first"));
  // From then on it is there as ever.
  const CliAnswer third = Lwqctl(QuickQuantize("third"));
  EXPECT_EQ(third.code, 0) << third.err;
  EXPECT_THAT(third.err, Not(HasSubstr("made again")));
}

TEST_F(CliQuantizeTest, AJobThatAnotherCommandWaitsForGoesOn) {
  const auto start = [&](const std::string& name) {
    std::string words = QuickQuantize(name);
    absl::StrReplaceAll({{"--calibration-tokens 512", "--calibration-tokens 32768"}}, &words);
    std::FILE* shell = ::popen(
        absl::StrCat("echo $$ >", File(name + ".pid"), "; exec ", Line(words, name)).c_str(), "r");
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (Read(0, name).err.find("job j-") == std::string::npos && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(10));
    }
    return shell;
  };
  std::FILE* stays = start("stays");
  std::FILE* goes = start("goes");
  int pid = 0;
  ASSERT_TRUE(absl::SimpleAtoi(ReadFile(File("goes.pid"), 100).value_or(""), &pid));
  ASSERT_EQ(::kill(pid, SIGINT), 0);
  EXPECT_EQ(WEXITSTATUS(::pclose(goes)), 130) << Read(0, "goes").err;
  EXPECT_THAT(Read(0, "goes").err, HasSubstr("goes on: another command may wait for it"));
  EXPECT_EQ(WEXITSTATUS(::pclose(stays)), 0) << Read(0, "stays").err;
  EXPECT_TRUE(FileExists(File("stays/model.safetensors")));
}

TEST_F(CliQuantizeTest, ABrokenModelIsRefusedByName) {
  std::filesystem::copy(SampleModelPath(), File("model"));
  std::filesystem::resize_file(File("model/model.safetensors"), 100'000);
  const CliAnswer answer =
      Lwqctl(absl::StrCat("quantize ", File("model"), " --budget 4bpw --out ", File("out")));
  ExpectRefused(answer, "ST_");
  EXPECT_THAT(answer.err, HasSubstr("model.safetensors"));
}

TEST_F(CliQuantizeTest, ABudgetThatCannotBeKeptIsRefusedWithTheSmallest) {
  const CliAnswer answer =
      Lwqctl(absl::StrCat("quantize ", SampleModelPath(), " --budget 1000 --no-eval --calibration ",
                          SampleModelPath(), "/held-out.txt --out ", File("out")));
  ExpectRefused(answer, "BUDGET_INFEASIBLE");
  EXPECT_EQ(answer.code, 9);
}

TEST_F(CliQuantizeTest, AnUnknownMethodIsRefusedWithTheKnownOnes) {
  const CliAnswer answer = Lwqctl(absl::StrCat(
      "quantize ", SampleModelPath(), " --budget 4bpw --method no-such --no-eval --calibration ",
      SampleModelPath(), "/held-out.txt --out ", File("out")));
  ExpectRefused(answer, "no-such");
  EXPECT_THAT(answer.err, HasSubstr("rtn"));
}

}  // namespace
}  // namespace lwq::testing

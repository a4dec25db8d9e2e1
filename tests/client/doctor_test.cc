#include "client/doctor.h"

#include "base/failure.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using State = Finding::State;

MachineFacts GoodMachine() {
  MachineFacts facts;
  facts.processors = 8;
  facts.memory_bytes = int64_t{32} << 30;
  facts.available_bytes = int64_t{24} << 30;
  facts.disk_directory = "/data";
  facts.disk_writable = true;
  facts.disk_free_bytes = int64_t{500} << 30;
  facts.cpu_flags = " fpu avx2 fma avx512f avx512_bf16 ";
  facts.open_files = 4096;
  return facts;
}

Finding Named(const std::vector<Finding>& findings, const std::string& name) {
  for (const Finding& finding : findings) {
    if (finding.name == name) return finding;
  }
  ADD_FAILURE() << "nothing about " << name;
  return {};
}

TEST(DoctorTest, AGoodMachineIsOk) {
  const std::vector<Finding> findings = FindingsOfMachine(GoodMachine());
  for (const Finding& finding : findings) {
    EXPECT_EQ(finding.state, State::kOk) << finding.name;
    EXPECT_THAT(finding.advice, IsEmpty());
  }
  EXPECT_THAT(Named(findings, "processor").detail, HasSubstr("--compute bf16"));
  EXPECT_FALSE(AnyFailed(findings));
}

TEST(DoctorTest, EachWantHasItsAdvice) {
  MachineFacts facts = GoodMachine();
  facts.cpu_flags = " fpu sse2 avx20 ";  // not the flag that is looked for
  facts.available_bytes = int64_t{1} << 30;
  facts.disk_free_bytes = int64_t{1} << 30;
  facts.open_files = 256;
  std::vector<Finding> findings = FindingsOfMachine(facts);
  for (const Finding& finding : findings) {
    EXPECT_EQ(finding.state, State::kWarn) << finding.name;
    EXPECT_THAT(finding.advice, Not(IsEmpty())) << finding.name;
  }
  facts.disk_writable = false;
  findings = FindingsOfMachine(facts);
  EXPECT_EQ(Named(findings, "disk").state, State::kFail);
  EXPECT_THAT(Named(findings, "disk").advice, HasSubstr("--data-dir"));
  EXPECT_TRUE(AnyFailed(findings));
}

// Of the machine that runs the test: whatever it is, it has these.
TEST(DoctorTest, FactsAreRead) {
  const MachineFacts facts = ReadMachineFacts("/nowhere/at/all");
  EXPECT_GT(facts.processors, 0);
  EXPECT_GT(facts.memory_bytes, int64_t{64} << 20);
  EXPECT_GT(facts.available_bytes, 0);
  EXPECT_GT(facts.disk_free_bytes, 0);
  EXPECT_GT(facts.open_files, 0);
  EXPECT_EQ(facts.disk_directory, "/");
}

TEST(DoctorTest, TheServersOwnChecksAndItsVersion) {
  v1::ServerInfo info;
  info.set_version("2");
  v1::HealthCheck* check = info.add_checks();
  check->set_name("workers");
  check->set_state(v1::HealthCheck::FAIL);
  check->set_detail("none\x1b");
  check->set_advice("start one");
  const std::vector<Finding> findings = FindingsOfServer(info, "1");
  EXPECT_EQ(Named(findings, "version").state, State::kWarn);
  EXPECT_EQ(Named(findings, "workers").state, State::kFail);
  EXPECT_EQ(Named(findings, "workers").detail, "none\\x1b");
  EXPECT_EQ(FindingsOfServer(info, "2")[0].state, State::kOk);
}

TEST(DoctorTest, AServerThatCannotBeReached) {
  const Finding finding = UnreachableServer(
      "localhost:1", Failure(absl::StatusCode::kUnavailable, "UNAVAILABLE", "refused"));
  EXPECT_EQ(finding.state, State::kFail);
  EXPECT_THAT(finding.detail, HasSubstr("refused"));
  EXPECT_THAT(finding.advice, HasSubstr("--server"));
}

TEST(DoctorTest, ReadsWhatTheWorkerSaysOfAModel) {
  LWQ_ASSERT_OK_AND_ASSIGN(
      const std::vector<Finding> findings,
      FindingsOfModel("{\"name\":\"config\",\"state\":\"ok\",\"detail\":\"d\",\"advice\":\"\"}\n"
                      "{\"name\":\"tokenizer\",\"state\":\"fail\",\"detail\":\"e\","
                      "\"advice\":\"get it\"}\n"));
  ASSERT_EQ(findings.size(), 2u);
  EXPECT_EQ(findings[1].state, State::kFail);
  EXPECT_EQ(findings[1].advice, "get it");
  EXPECT_FALSE(FindingsOfModel("").ok());
  EXPECT_FALSE(FindingsOfModel("lwq-worker: error\n").ok());
}

TEST(DoctorTest, TextAndJson) {
  const std::vector<Finding> findings = {{"machine", "memory", State::kOk, "24 GiB", ""},
                                         {"server", "reachable", State::kFail, "no", "start it"}};
  EXPECT_EQ(FindingsText(findings),
            "machine\n"
            "  ok    memory     24 GiB\n"
            "\nserver\n"
            "  fail  reachable  no\n"
            "                   do: start it\n");
  EXPECT_THAT(FindingsJson(findings), HasSubstr("\"state\": \"fail\""));
}

}  // namespace
}  // namespace lwq::client

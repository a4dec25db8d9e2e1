#include "server/service/audit_log.h"

#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/log.h"
#include "gtest/gtest.h"
#include "tests/testing/simulated_clock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

class AuditLogTest : public ::testing::Test {
 protected:
  std::string path(const std::string& suffix = "") const {
    return JoinPath(directory_.path(), "audit.jsonl") + suffix;
  }
  std::unique_ptr<AuditLog> Open(int64_t max_bytes = 1 << 20, int num_kept = 2) {
    auto log = AuditLog::Open({path(), max_bytes, num_kept}, &clock_);
    EXPECT_OK(log.status());
    return *std::move(log);
  }
  std::vector<nlohmann::json> LinesOf(const std::string& file) const {
    std::vector<nlohmann::json> lines;
    const std::string text = ReadFile(file, 1 << 24).value_or("");
    for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      lines.push_back(nlohmann::json::parse(line));
    }
    return lines;
  }

  TempDirectory directory_ = *TempDirectory::Create();
  SimulatedClock clock_;
};

const AuditEntry kEntry = {.caller = "tokens/t1",
                           .principal = "anna",
                           .role = "client",
                           .peer = "ipv4:10.0.0.7:1",
                           .method = "JobService.DeleteJob",
                           .resource = "jobs/j-1",
                           .request_id = "",
                           .outcome = "OK"};

TEST_F(AuditLogTest, ALineSaysWhoDidWhatToWhatAndWithWhichOutcome) {
  {
    auto log = Open();
    log->Write(kEntry);
    AuditEntry hostile = kEntry;
    hostile.resource = "jobs/\"}\n{\"caller\":\"tokens/other\"\x1b[2J";
    hostile.outcome = "NAME_INVALID";
    log->Write(hostile);
  }
  Open()->Write(kEntry);  // another process goes on below
  const std::vector<nlohmann::json> lines = LinesOf(path());
  ASSERT_EQ(lines.size(), 3);
  EXPECT_EQ(lines[0]["time"], "2027-01-15T08:00:00.000000Z");
  EXPECT_EQ(lines[0]["caller"], "tokens/t1");
  EXPECT_EQ(lines[0]["principal"], "anna");
  EXPECT_EQ(lines[0]["role"], "client");
  EXPECT_EQ(lines[0]["peer"], "ipv4:10.0.0.7:1");
  EXPECT_EQ(lines[0]["method"], "JobService.DeleteJob");
  EXPECT_EQ(lines[0]["resource"], "jobs/j-1");
  EXPECT_EQ(lines[0]["outcome"], "OK");
  EXPECT_FALSE(lines[0].contains("request_id")) << "what is empty is left out";
  EXPECT_EQ(lines[1]["caller"], "tokens/t1");
  EXPECT_EQ(lines[1]["outcome"], "NAME_INVALID");
  struct stat info = {};
  ASSERT_EQ(::stat(path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(AuditLogTest, AFileThatIsFullMakesRoomAndTheOldestGoes) {
  auto log = Open(/*max_bytes=*/1000, /*num_kept=*/2);
  for (int i = 0; i < 100; ++i) {
    AuditEntry entry = kEntry;
    entry.resource = absl::StrCat("jobs/j-", i);
    log->Write(entry);
  }
  std::vector<nlohmann::json> all;
  for (const char* suffix : {".2", ".1", ""}) {
    const std::vector<nlohmann::json> lines = LinesOf(path(suffix));
    EXPECT_GE(lines.size(), 2) << suffix;
    EXPECT_LE(FileSize(path(suffix)).value_or(0), 1000) << suffix;
    all.insert(all.end(), lines.begin(), lines.end());
  }
  EXPECT_FALSE(FileExists(path(".3")));
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i]["resource"], absl::StrCat("jobs/j-", 100 - all.size() + i)) << "no line lost";
  }
}

TEST_F(AuditLogTest, StrangersDoNotDriveOutWhatOthersDid) {
  auto log = Open();
  AuditEntry stranger = {
      .peer = "ipv4:6.6.6.6:6", .method = "JobService.ListJobs", .outcome = "TOKEN_MISSING"};
  for (int i = 0; i < 1000; ++i) log->Write(stranger);
  log->Write(kEntry);
  clock_.Advance(absl::Seconds(1));
  log->Write(stranger);
  const std::vector<nlohmann::json> lines = LinesOf(path());
  ASSERT_EQ(lines.size(), 12);
  EXPECT_EQ(lines[10]["resource"], "jobs/j-1");
  EXPECT_EQ(lines[10]["left_out"], 990) << "how many is said";
  EXPECT_EQ(lines[11]["outcome"], "TOKEN_MISSING");
}

TEST_F(AuditLogTest, AFileThatCannotBeOpenedIsSaidAtTheStart) {
  EXPECT_FALSE(AuditLog::Open({JoinPath(directory_.path(), "no/such/folder")}, &clock_).ok());
  ASSERT_EQ(::symlink("/etc/passwd", path().c_str()), 0);
  EXPECT_FALSE(AuditLog::Open({path()}, &clock_).ok()) << "a link is not followed";
}

}  // namespace
}  // namespace lwq::testing

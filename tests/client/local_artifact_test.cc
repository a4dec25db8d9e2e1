#include "client/local_artifact.h"

#include <filesystem>

#include "base/file.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::HasSubstr;

constexpr char kReport[] = R"({"lwq_report": 1, "of_a_newer_version": {},
  "job": {"name": "jobs/j-1", "newer": 1, "plan": {"bits_per_weight": 3.25, "units":
          [{"unit": "layers.0.down", "format": "int3-g128"}]}},
  "artifact": {"name": "artifacts/j-1", "weight_bytes": "1234567"}})";

TEST(LocalArtifactTest, IsWhatItsReportSays) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  ASSERT_OK(WriteFileAtomically(JoinPath(directory.path(), "lwq-report.json"), kReport));
  ASSERT_TRUE(IsArtifactHere(directory.path()));
  LWQ_ASSERT_OK_AND_ASSIGN(const DiffSide side, ReadSideAt(directory.path()));
  EXPECT_EQ(side.artifact.weight_bytes(), 1234567);
  EXPECT_EQ(side.artifact.name(), directory.path());
  EXPECT_EQ(side.job.plan().units(0).format(), "int3-g128");
  // A file has its report beside it.
  const std::string file = JoinPath(directory.path(), "a.gguf");
  ASSERT_OK(WriteFileAtomically(file, "GGUF"));
  ASSERT_OK(WriteFileAtomically(file + ".lwq-report.json", kReport));
  EXPECT_TRUE(IsArtifactHere(file));
  EXPECT_OK(ReadSideAt(file));
}

// "lwqctl diff mine other" means a server's artifacts, though a folder "mine" lies here.
TEST(LocalArtifactTest, AFolderHidesNoArtifactOfAServer) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  const std::string before = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  std::filesystem::create_directory("mine");
  EXPECT_FALSE(IsArtifactHere("mine"));
  EXPECT_TRUE(IsArtifactHere("./mine"));
  EXPECT_OK(WriteFileAtomically("mine/lwq-report.json", kReport));
  EXPECT_TRUE(IsArtifactHere("mine"));
  std::filesystem::current_path(before);
}

TEST(LocalArtifactTest, WithoutAReportNothingIsKnown) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  EXPECT_FALSE(IsArtifactHere(JoinPath(directory.path(), "j-1")));
  EXPECT_THAT(ReadSideAt(directory.path()), FailsWith("FILE_NOT_FOUND", HasSubstr("lwq-report")));
  ASSERT_OK(WriteFileAtomically(JoinPath(directory.path(), "lwq-report.json"), "{\"job\": 1}"));
  EXPECT_THAT(ReadSideAt(directory.path()), FailsWith("JSON_INVALID", HasSubstr("artifact")));
}

}  // namespace
}  // namespace lwq::client

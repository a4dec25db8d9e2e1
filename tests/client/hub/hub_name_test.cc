#include "client/hub/hub_name.h"

#include <filesystem>

#include "base/file.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::HasSubstr;

TEST(HubNameTest, NamesAreNoPaths) {
  LWQ_ASSERT_OK_AND_ASSIGN(HubName name, ParseHubName("hf://meta-llama/Llama-3.2-1B"));
  EXPECT_EQ(name.repository, "meta-llama/Llama-3.2-1B");
  EXPECT_EQ(name.revision, "main");
  LWQ_ASSERT_OK_AND_ASSIGN(name, ParseHubName("org/model@refs/pr/1"));
  EXPECT_EQ(name.revision, "refs/pr/1");
  EXPECT_EQ(name.Text(), "org/model@refs/pr/1");
  for (const char* bad : {"hf://", "hf://a", "hf://a/b/c", "hf://../b", "hf://a/..", "hf:///b",
                          "hf://a/b@", "hf://a/b@../x", "hf://a/b c", "hf://a/b?x", "hf://-a/b"}) {
    EXPECT_THAT(ParseHubName(bad), FailsWith("USAGE", HasSubstr("ORGANIZATION/NAME"))) << bad;
  }
}

TEST(HubNameTest, ADirectoryThatIsThereIsNoName) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  std::filesystem::create_directories("org/there");
  EXPECT_FALSE(IsHubName("org/there"));
  EXPECT_TRUE(IsHubName("hf://org/there"));
  EXPECT_TRUE(IsHubName("org/absent"));
  EXPECT_TRUE(IsHubName("org/absent@v1"));
  EXPECT_FALSE(IsHubName("./absent"));
  EXPECT_FALSE(IsHubName("/org/absent"));
  EXPECT_FALSE(IsHubName("absent"));
  std::filesystem::current_path(before);
}

}  // namespace
}  // namespace lwq::client

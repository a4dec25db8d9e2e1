#include "base/private_path.h"

#include <sys/stat.h>

#include "base/file.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

mode_t ModeOf(const std::string& path) {
  struct stat info = {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
  return info.st_mode & 0777;
}

class PrivatePathTest : public ::testing::Test {
 protected:
  PrivatePathTest() : directory_(*TempDirectory::Create()), before_(::umask(0)) {}
  ~PrivatePathTest() override { ::umask(before_); }
  std::string Path(const std::string& name) const { return JoinPath(directory_.path(), name); }

  TempDirectory directory_;
  const mode_t before_;
};

TEST_F(PrivatePathTest, ADirectoryThatIsMadeIsItsOwnersAloneAndOneThatIsThereStays) {
  ASSERT_OK(MakePrivateDirectory(Path("new/own")));
  EXPECT_EQ(ModeOf(Path("new/own")), 0700u);
  ASSERT_EQ(::mkdir(Path("shared").c_str(), 0775), 0);
  ASSERT_OK(MakePrivateDirectory(Path("shared")));
  EXPECT_EQ(ModeOf(Path("shared")), 0775u);
}

TEST_F(PrivatePathTest, AFileIsItsOwnersAloneWhetherItIsThereOrNot) {
  ASSERT_OK(MakePrivateFile(Path("new")));
  EXPECT_EQ(ModeOf(Path("new")), 0600u);
  ASSERT_OK(WriteFileAtomically(Path("old"), "kept"));
  ASSERT_EQ(::chmod(Path("old").c_str(), 0644), 0);
  ASSERT_OK(MakePrivateFile(Path("old")));
  EXPECT_EQ(ModeOf(Path("old")), 0600u);
  EXPECT_EQ(*ReadFile(Path("old"), 10), "kept");
}

}  // namespace
}  // namespace lwq

#include "base/model_path.h"

#include "base/file.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

TEST(ModelPathTest, AGgufFileIsKnownByNameOrContent) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory scratch, TempDirectory::Create());
  const auto write = [&](const char* name, const char* content) {
    const std::string path = JoinPath(scratch.path(), name);
    EXPECT_OK(WriteFileAtomically(path, content));
    return path;
  };
  EXPECT_TRUE(IsGgufFile(write("a.gguf", "damaged")));
  EXPECT_TRUE(IsGgufFile(write("b.GGUF", "")));
  const std::string blob = write("0123abcd", "GGUF\x03");
  EXPECT_TRUE(IsGgufFile(blob)) << "as Hugging Face's cache names files";
  EXPECT_FALSE(IsGgufFile(write("c", "GGU")));
  EXPECT_FALSE(IsGgufFile(write("gguf", "text")));
  EXPECT_FALSE(IsGgufFile(JoinPath(scratch.path(), "missing.gguf")));
  EXPECT_OK(MakeDirectories(JoinPath(scratch.path(), "folder.gguf")));
  EXPECT_FALSE(IsGgufFile(JoinPath(scratch.path(), "folder.gguf")));
  EXPECT_TRUE(IsModelPath(JoinPath(scratch.path(), "folder.gguf")));
  EXPECT_TRUE(IsModelPath(blob));
  EXPECT_FALSE(IsModelPath(JoinPath(scratch.path(), "c")));
}

TEST(ModelPathTest, FilesLieInTheDirectoryOrBesideTheFile) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory scratch, TempDirectory::Create());
  EXPECT_EQ(FileOfModel(scratch.path(), "x"), JoinPath(scratch.path(), "x"));
  EXPECT_EQ(FileOfModel(JoinPath(scratch.path(), "m.gguf"), "m.gguf"),
            JoinPath(scratch.path(), "m.gguf"));
}

}  // namespace
}  // namespace lwq

#include "client/verify_artifact.h"

#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/hash.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/gguf/gguf_writer.h"

namespace lwq::client {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::HasSubstr;

class VerifyArtifactTest : public ::testing::Test {
 protected:
  VerifyArtifactTest() : directory_(*TempDirectory::Create()) {}

  std::string File(const std::string& name) const { return JoinPath(directory_.path(), name); }

  // A manifest of these files as they are now.
  void WriteManifest(const std::string& path, const std::vector<std::string>& files,
                     const std::string& folder) {
    std::string list;
    for (const std::string& name : files) {
      const std::string file = JoinPath(folder, name);
      absl::StrAppend(&list, list.empty() ? "" : ",", R"({"name":")", name, R"(","bytes":)",
                      *FileSize(file), R"(,"sha256":")", *Sha256HexOfFile(file), R"("})");
    }
    ASSERT_OK(
        WriteFileAtomically(path, absl::StrCat(R"({"lwq_manifest":2,"files":[)", list, "]}")));
  }

  void WriteGguf(const std::string& path, float last) {
    LWQ_ASSERT_OK_AND_ASSIGN(const GgufLayout layout,
                             LayOutGguf(GgufMetadata(), {{"a", GgufType::kF32, {2, 2}}}));
    LWQ_ASSERT_OK_AND_ASSIGN(const auto writer, GgufWriter::Create(path, layout));
    const float values[4] = {1, 2, 3, last};
    uint8_t bytes[sizeof(values)];
    std::memcpy(bytes, values, sizeof(values));
    ASSERT_OK(writer->Append("a", bytes));
    ASSERT_OK(writer->Finish());
  }

  TempDirectory directory_;
};

TEST_F(VerifyArtifactTest, ADirectoryIsHeldAgainstItsManifest) {
  ASSERT_OK(WriteFileAtomically(File("a"), "first"));
  ASSERT_OK(WriteFileAtomically(File("b"), "second"));
  EXPECT_THAT(VerifyArtifactAt(directory_.path()).status(),
              FailsWith("FILE_NOT_FOUND", HasSubstr("lwq-manifest.json")));
  WriteManifest(File("lwq-manifest.json"), {"a", "b"}, directory_.path());
  LWQ_ASSERT_OK_AND_ASSIGN(const VerifiedArtifact verified, VerifyArtifactAt(directory_.path()));
  EXPECT_EQ(verified.num_files, 2);
  EXPECT_EQ(verified.bytes, 11);
  ASSERT_OK(WriteFileAtomically(File("b"), "secand"));
  EXPECT_THAT(VerifyArtifactAt(directory_.path()).status(),
              FailsWith("VERIFY_MISMATCH", HasSubstr("SHA-256")));
  ASSERT_OK(WriteFileAtomically(File("b"), "longer than that"));
  EXPECT_THAT(VerifyArtifactAt(directory_.path()).status(),
              FailsWith("VERIFY_MISMATCH", HasSubstr("16 bytes, the manifest says 6")));
  ASSERT_OK(RemoveAll(File("b")));
  EXPECT_THAT(VerifyArtifactAt(directory_.path()).status(),
              FailsWith("VERIFY_MISMATCH", HasSubstr("missing")));
}

TEST_F(VerifyArtifactTest, WeightsThatNoManifestListsAreNoneOfTheArtifacts) {
  ASSERT_OK(WriteFileAtomically(File("model-00001-of-00001.safetensors"), "first"));
  WriteManifest(File("lwq-manifest.json"), {"model-00001-of-00001.safetensors"}, directory_.path());
  ASSERT_OK(WriteFileAtomically(File("README.md"), "a note"));
  EXPECT_OK(VerifyArtifactAt(directory_.path()).status());
  for (const char* name : {"model.safetensors", "quantize_config.json", "m.gguf"}) {
    ASSERT_OK(WriteFileAtomically(File(name), "foreign"));
    EXPECT_THAT(VerifyArtifactAt(directory_.path()).status(),
                FailsWith("VERIFY_MISMATCH", HasSubstr("not in the manifest")))
        << name;
    ASSERT_OK(RemoveAll(File(name)));
  }
}

TEST_F(VerifyArtifactTest, AGgufFileIsReadWholeToo) {
  const std::string file = File("m.gguf");
  WriteGguf(file, 4);
  std::string content = *ReadFile(file, 1 << 20);
  ASSERT_OK(WriteFileAtomically(File("model.gguf"), content));
  WriteManifest(file + ".lwq-manifest.json", {"model.gguf"}, directory_.path());
  LWQ_ASSERT_OK_AND_ASSIGN(const VerifiedArtifact verified, VerifyArtifactAt(file));
  EXPECT_EQ(verified.num_files, 1);
  EXPECT_EQ(verified.num_tensors, 1);
  // As the manifest says, and still no model.
  WriteGguf(file, std::numeric_limits<float>::infinity());
  ASSERT_OK(WriteFileAtomically(File("model.gguf"), *ReadFile(file, 1 << 20)));
  WriteManifest(file + ".lwq-manifest.json", {"model.gguf"}, directory_.path());
  EXPECT_THAT(VerifyArtifactAt(file).status(),
              FailsWith("VERIFY_MISMATCH", HasSubstr("tensor a, row 1")));
  content.resize(content.size() - 20);  // past the padding
  ASSERT_OK(WriteFileAtomically(file, content));
  ASSERT_OK(WriteFileAtomically(File("model.gguf"), content));
  WriteManifest(file + ".lwq-manifest.json", {"model.gguf"}, directory_.path());
  EXPECT_THAT(VerifyArtifactAt(file).status(), FailsWith("GGUF_SIZE", HasSubstr("m.gguf")));
}

TEST_F(VerifyArtifactTest, ManifestsThatNameOtherFoldersAndOtherThingsAreRefused) {
  ASSERT_OK(WriteFileAtomically(File("a"), "first"));
  for (const char* manifest :
       {"", "[]", R"({"files":[]})", R"({"files":[{"name":"../a","bytes":5,"sha256":"0"}]})",
        R"({"files":[{"name":"a","bytes":-5,"sha256":"0"}]})", R"({"files":[7]})"}) {
    ASSERT_OK(WriteFileAtomically(File("lwq-manifest.json"), manifest));
    EXPECT_THAT(VerifyArtifactAt(directory_.path()).status(),
                FailsWith("VERIFY_MISMATCH", HasSubstr("lwq-manifest.json")))
        << manifest;
  }
  EXPECT_THAT(VerifyArtifactAt(File("a")).status(), FailsWith("USAGE", HasSubstr("FILE.gguf")));
  EXPECT_THAT(VerifyArtifactAt(File("none")).status(),
              FailsWith("FILE_NOT_FOUND", HasSubstr("none")));
}

}  // namespace
}  // namespace lwq::client

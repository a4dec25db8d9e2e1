// What lwqctl makes of lwq-worker's answers; the conversion itself is tested in the engine, and
// both together in tests/peers/convert_test.py.
#include "client/convert_artifact.h"

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/hash.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ConvertArtifactTest, TheAnswerOfAFailureIsThatFailure) {
  const absl::Status status =
      StatusOfConvert(R"({"code":3,"reason":"FORMAT_UNSUPPORTED","message":"m: no"})");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), "FORMAT_UNSUPPORTED");
  EXPECT_EQ(status.message(), "m: no");
  EXPECT_OK(StatusOfConvert(R"({"from":"gptq","weight_bytes":7})"));
  EXPECT_EQ(StatusOfConvert(R"({"code":99,"reason":"X"})").code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(StatusOfConvert("killed").message()), HasSubstr("said: killed"));
}

// Wait statuses as waitpid(2) gives them: an exit code in the second byte, a signal in the first.
constexpr int kExit0 = 0, kExit1 = 1 << 8, kExit78 = 78 << 8, kKilled = 9;

TEST(ConvertArtifactTest, TheAnswerStandsAmongWarnings) {
  EXPECT_EQ(AnswerOfConvert(kExit0, "W warning: slow disk\n{\"from\":\"gptq\"}\n").value_or("none"),
            "{\"from\":\"gptq\"}\n");
  EXPECT_EQ(AnswerOfConvert(kExit0, "{\"from\":\"gptq\"}\nlate {warning}\n\n").value_or("none"),
            "{\"from\":\"gptq\"}\n");
  EXPECT_OK(AnswerOfConvert(kExit1, "{\"reason\":\"X\"}\n"));
  EXPECT_THAT(AnswerOfConvert(kExit0, ""), FailsWith("INTERNAL", HasSubstr("said: nothing")));
}

TEST(ConvertArtifactTest, AWorkerThatDiedIsNamedSo) {
  EXPECT_THAT(AnswerOfConvert(kKilled, ""), FailsWith("CHILD_DIED", HasSubstr("by signal 9")));
  EXPECT_THAT(AnswerOfConvert(kExit78, "F no such flag\n"),
              FailsWith("CHILD_DIED", HasSubstr("status 78 and said last: F no such flag")));
}

TEST(ConvertArtifactTest, TheSourceStaysWhateverItsName) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  const std::string out = JoinPath(directory.path(), "small");
  const std::string source = out + ".partial";  // as an interrupted download is called
  ASSERT_OK(MakeDirectories(source));
  ASSERT_OK(WriteFileAtomically(JoinPath(source, "weights"), "w"));
  EXPECT_FALSE(ConvertArtifactAt({source, "gptq", out}).ok());  // it is no artifact
  EXPECT_TRUE(FileExists(JoinPath(source, "weights")));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto left, ListDirectory(directory.path()));
  EXPECT_THAT(left, ElementsAre("small.partial"));
}

TEST(ConvertArtifactTest, ASourceThatIsNotAsItsManifestSaysIsRefused) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  const std::string source = JoinPath(directory.path(), "source");
  ASSERT_OK(MakeDirectories(source));
  ASSERT_OK(WriteFileAtomically(JoinPath(source, "model.safetensors"), "weights"));
  ASSERT_OK(WriteFileAtomically(
      JoinPath(source, "lwq-manifest.json"),
      absl::StrCat(R"({"files":[{"name":"model.safetensors","bytes":7,"sha256":")",
                   Sha256Hex("weighty"), "\"}]}")));
  const std::string out = JoinPath(directory.path(), "out");
  const absl::Status status = ConvertArtifactAt({source, "gptq", out}).status();
  EXPECT_THAT(status, FailsWith("VERIFY_MISMATCH", HasSubstr("model.safetensors")));
  EXPECT_FALSE(FileExists(out));
}

TEST(ConvertArtifactTest, AGgufFileIsSaidToBeNone) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  const std::string source = JoinPath(directory.path(), "q4.gguf");
  ASSERT_OK(WriteFileAtomically(source, "GGUF"));
  EXPECT_THAT(ConvertArtifactAt({source, "gptq", JoinPath(directory.path(), "out")}),
              FailsWith("FORMAT_UNSUPPORTED", HasSubstr("of GGUF files")));
}

TEST(ConvertArtifactTest, SaysWhetherItIsLossless) {
  LWQ_ASSERT_OK_AND_ASSIGN(
      const std::string lossless,
      ConvertedText(R"({"lossless":true,"linears":{"int4-g128":3},"weight_bytes":1048576})", "o"));
  EXPECT_THAT(lossless, HasSubstr("3 in int4-g128"));
  EXPECT_THAT(lossless, HasSubstr("lossless: every weight"));
  LWQ_ASSERT_OK_AND_ASSIGN(
      const std::string rounded,
      ConvertedText(R"({"lossless":false,"rounded_scales":5,"largest_rounding":0.0019})", "o"));
  EXPECT_THAT(rounded, HasSubstr("not lossless: 5 scales were rounded, by up to 0.0019"));
}

TEST(ConvertArtifactTest, WhatCannotBeIsSaidBeforeAnythingStarts) {
  EXPECT_THAT(ConvertArtifactAt({"/no/such", "gptq", "/tmp/x-lwq"}),
              FailsWith("FILE_NOT_FOUND", HasSubstr("/no/such")));
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory source, TempDirectory::Create());
  const std::string out = JoinPath(source.path(), "out");
  EXPECT_THAT(ConvertArtifactAt({source.path(), "gptq", out + ".gguf"}),
              FailsWith("USAGE", HasSubstr("FILE.gguf")));
  EXPECT_THAT(ConvertArtifactAt({source.path(), "gguf", out}),
              FailsWith("USAGE", HasSubstr("FILE.gguf")));
}

}  // namespace
}  // namespace lwq::client

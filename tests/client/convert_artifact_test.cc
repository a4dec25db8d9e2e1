// What lwqctl makes of lwq-worker's answers; the conversion itself is tested in the engine, and
// both together in tests/peers/convert_test.py.
#include "client/convert_artifact.h"

#include "base/failure.h"
#include "base/file.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::lwq::testing::FailsWith;
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

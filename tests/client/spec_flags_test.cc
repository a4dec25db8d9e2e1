// What a quantize command's flags become in the job's specification.
#include "client/spec_flags.h"

#include <array>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::HasSubstr;

absl::StatusOr<v1::QuantizeSpec> SpecOf(std::vector<std::string> words) {
  const std::array<absl::Span<const FlagDef>, 1> groups = {SpecFlags()};
  words.push_back("--budget=3bpw");
  absl::StatusOr<ParsedLine> line = ParseLine(groups, words);
  if (!line.ok()) return line.status();
  return SpecFromFlags(line->flags);
}

TEST(SpecFlagsTest, TokensOfStatisticsAndOfTheScorerAreApart) {
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::QuantizeSpec spec,
                           SpecOf({"--calibration-tokens=1000", "--score-tokens", "200"}));
  EXPECT_EQ(spec.calibration().num_tokens(), 1000);
  EXPECT_EQ(spec.calibration().score_tokens(), 200);
}

TEST(SpecFlagsTest, WhatIsNotGivenIsLeftToTheServer) {
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::QuantizeSpec spec, SpecOf({}));
  EXPECT_FALSE(spec.has_calibration());
}

TEST(SpecFlagsTest, AJobIsMeasuredWithoutBeingAsked) {
  // The server's own text is the server's to name: one that is older may not have it.
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::QuantizeSpec plain, SpecOf({}));
  EXPECT_FALSE(plain.has_evaluation());
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::QuantizeSpec tasks, SpecOf({"--eval-tasks=a.jsonl"}));
  EXPECT_EQ(tasks.evaluation().text_dataset(), "datasets/builtin-held-out");
  EXPECT_EQ(tasks.evaluation().text_tokens(), 4096);
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::QuantizeSpec fewer, SpecOf({"--eval-tokens=512"}));
  EXPECT_EQ(fewer.evaluation().text_tokens(), 512);
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::QuantizeSpec none, SpecOf({"--no-eval"}));
  EXPECT_TRUE(none.has_evaluation());
  EXPECT_EQ(none.evaluation().ByteSizeLong(), 0u);
  // Which one it is is known when it has been uploaded; how much of it, the server says.
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::QuantizeSpec own, SpecOf({"--eval-text=a.txt"}));
  EXPECT_FALSE(own.has_evaluation());
}

TEST(SpecFlagsTest, NoTokensToScoreOnAreRefused) {
  EXPECT_THAT(SpecOf({"--score-tokens=0"}), FailsWith("FLAG_INVALID", HasSubstr("score-tokens")));
}

TEST(SpecFlagsTest, OptionsAreNamesWithValues) {
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::QuantizeSpec spec,
                           SpecOf({"--method-option", "damping=0.02,note=a=b",
                                   "--scorer-option=seed=7", "--allocator-option=x=1"}));
  EXPECT_EQ(spec.method_options().at("damping"), "0.02");
  EXPECT_EQ(spec.method_options().at("note"), "a=b");
  EXPECT_EQ(spec.method_options().size(), 2u);
  EXPECT_EQ(spec.scorer_options().at("seed"), "7");
  EXPECT_EQ(spec.allocator_options().at("x"), "1");
  for (const char* text : {"damping", "=1", "damping=", "damping=1,damping=2", "a=1,,b=2"}) {
    EXPECT_THAT(SpecOf({"--method-option", text}),
                FailsWith("FLAG_INVALID", HasSubstr("--method-option")))
        << text;
  }
}

TEST(SpecFlagsTest, EnginesAndFormatsStandForProfiles) {
  const auto profile = [](std::vector<std::string> words) {
    const absl::StatusOr<v1::QuantizeSpec> spec = SpecOf(std::move(words));
    return spec.ok() ? spec->profile() : std::string(spec.status().message());
  };
  EXPECT_EQ(profile({}), "");
  EXPECT_EQ(profile({"--for=llama.cpp"}), "llama.cpp");
  EXPECT_EQ(profile({"--format=gguf"}), "llama.cpp");
  EXPECT_EQ(profile({"--format=compressed-tensors"}), "vllm-lowbit");
  EXPECT_EQ(profile({"--for=vllm"}), "vllm-lowbit");
  EXPECT_EQ(profile({"--for=sglang", "--format=compressed-tensors"}), "portable");
  EXPECT_EQ(profile({"--profile=portable", "--format=compressed-tensors"}), "portable");
  EXPECT_EQ(profile({"--for=gptqmodel"}), "gptqmodel");
  EXPECT_EQ(profile({"--format=gptq"}), "gptq");
  EXPECT_EQ(profile({"--for=sglang", "--format=gptq"}), "gptq");
  EXPECT_EQ(profile({"--for=gptqmodel", "--profile=gptqmodel"}), "gptqmodel");
  EXPECT_THAT(profile({"--for=ollama"}), HasSubstr("llama.cpp, vllm, sglang, transformers"));
  for (std::vector<std::string> words : {std::vector<std::string>{"--for=vllm", "--format=gguf"},
                                         {"--for=llama.cpp", "--format=compressed-tensors"},
                                         {"--for=llama.cpp", "--profile=portable"},
                                         {"--for=gptqmodel", "--format=compressed-tensors"},
                                         {"--profile=gptq", "--format=gguf"},
                                         {"--profile=llama.cpp", "--format=compressed-tensors"}}) {
    EXPECT_THAT(SpecOf(words), FailsWith("USAGE", HasSubstr("contradict"))) << words[0];
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::QuantizeSpec spec, SpecOf({"--for=llama.cpp"}));
  EXPECT_TRUE(IsForFiles(spec));
}

TEST(SpecFlagsTest, APresetIsABudget) {
  Flags flags;
  flags.Set("preset", "4bit");
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::QuantizeSpec spec, SpecFromFlags(flags));
  EXPECT_EQ(spec.budget().bits_per_weight(), 4.25);
  EXPECT_THAT(SpecOf({"--preset=4bit"}), FailsWith("USAGE", HasSubstr("give one")));
  flags.Set("preset", "5bit");
  EXPECT_THAT(SpecFromFlags(flags), FailsWith("FLAG_INVALID", HasSubstr("8bit")));
}

}  // namespace
}  // namespace lwq::client

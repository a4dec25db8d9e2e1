#include "base/file.h"
#include "gtest/gtest.h"
#include "tests/fuzz/inputs.h"
#include "tests/fuzz/mutation.h"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

// A config.json of each family.
std::vector<std::string> Seeds() {
  std::vector<std::string> seeds;
  const auto add = [&seeds](const std::string& directory) {
    const absl::StatusOr<std::string> text = ReadFile(JoinPath(directory, "config.json"), 1 << 20);
    EXPECT_OK(text.status());
    if (text.ok()) seeds.push_back(*text);
  };
  add(SampleModelPath());
  for (const char* name :
       {"llama-llama3", "llama-yarn", "llama-longrope", "llama-dynamic", "mistral", "mixtral",
        "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "phi3", "gemma2", "gemma3"}) {
    add(JoinPath(LWQ_SOURCE_DIR "/tests/golden/families", name));
  }
  return seeds;
}

// A mutant either gives a spec with sane sizes and finite rotations or a typed refusal.
TEST(ConfigFuzzTest, MutantsOfConfigJsonAreRefusedOrSane) {
  const std::vector<std::string> seeds = Seeds();
  Mutator mutator(2, {"-1",
                      "0",
                      "1e308",
                      "NaN",
                      "null",
                      "{}",
                      "[]",
                      "[[[[[[[[",
                      "\"",
                      "\\u0000",
                      "9223372036854775807",
                      "18446744073709551616",
                      "1.5",
                      "true",
                      "\xff",
                      "1e-3",
                      "\"hidden_size\":",
                      "\"num_attention_heads\": 0,",
                      "rope_scaling",
                      ",",
                      "\"longrope\"",
                      "\"yarn\"",
                      "\"dynamic\"",
                      "\"sliding_attention\""});
  int accepted = 0;
  for (int i = 0; i < 10000; ++i) {
    const std::string text = mutator.Mutate(seeds[static_cast<size_t>(i) % seeds.size()]);
    const absl::StatusOr<bool> tried = TryConfig(text);
    ASSERT_OK(tried) << text;
    accepted += *tried ? 1 : 0;
  }
  EXPECT_GT(accepted, 100);
}

// Of every kind of dictionary that is read.
class QuantizationConfigFuzzTest : public ::testing::TestWithParam<const char*> {};

TEST_P(QuantizationConfigFuzzTest, MutantsAreRefusedOrSane) {
  const std::string seed = GetParam();
  LWQ_ASSERT_OK_AND_ASSIGN(const bool accepted, TryQuantizationConfig(seed));
  ASSERT_TRUE(accepted);
  Mutator mutator(3, {"-1", "0", "1e308", "null", "{}", "[]", "\"", "17", "\"channel\"", "64",
                      "99999999999999999999", "false", "\"int\"", "\xc3\x28", "group_size"});
  for (int i = 0; i < 20000; ++i) {
    const std::string text = mutator.Mutate(seed);
    ASSERT_OK(TryQuantizationConfig(text)) << text;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, QuantizationConfigFuzzTest,
    ::testing::Values(
        R"({"model_type":"llama","quantization_config":{"quant_method":"compressed-tensors",)"
        R"("format":"pack-quantized","ignore":["lm_head"],"config_groups":{"group_w4_g128":{)"
        R"("targets":["re:^a$"],"weights":{"num_bits":4,"type":"int","symmetric":true,)"
        R"("strategy":"group","group_size":128,"dynamic":false},"input_activations":null,)"
        R"("output_activations":null,"format":"pack-quantized"}}}})",
        R"({"model_type":"llama","quantization_config":{"quant_method":"gptq","bits":4,)"
        R"("checkpoint_format":"gptq","group_size":128,"sym":true,"desc_act":false,)"
        R"("pack_dtype":"int32","dynamic":{"-:^a$":{},"+:^b$":{"bits":8,"group_size":-1}}}})"));

}  // namespace
}  // namespace lwq::testing

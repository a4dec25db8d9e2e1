#include "base/file.h"
#include "gtest/gtest.h"
#include "tests/fuzz/mutation.h"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/artifact/quantization_config.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/model/families.h"

namespace lwq::testing {
namespace {

std::string SampleConfig() {
  absl::StatusOr<std::string> text = ReadFile(SampleModelPath() + "/config.json", 1 << 20);
  return text.ok() ? *text : std::string();
}

// A mutant either gives a spec with sane sizes or a typed refusal.
TEST(ConfigFuzzTest, MutantsOfConfigJsonAreRefusedOrSane) {
  const std::string seed = SampleConfig();
  ASSERT_FALSE(seed.empty());
  Mutator mutator(2, {"-1", "0", "1e308", "NaN", "null", "{}", "[]", "[[[[[[[[", "\"", "\\u0000",
                      "9223372036854775807", "18446744073709551616", "1.5", "true", "\xff",
                      "\"hidden_size\":", "\"num_attention_heads\": 0,", "rope_scaling", ","});
  int accepted = 0;
  for (int i = 0; i < 4000; ++i) {
    const std::string text = mutator.Mutate(seed);
    for (const ModelFamilyDef* family : ModelFamilies()) {
      const absl::StatusOr<DecoderSpec> spec = ParseConfig(*family, text);
      if (!spec.ok()) {
        ASSERT_TRUE(absl::IsInvalidArgument(spec.status()) || absl::IsUnimplemented(spec.status()))
            << spec.status() << "\n"
            << text;
        ASSERT_FALSE(spec.status().message().empty());
        continue;
      }
      ++accepted;
      ASSERT_GT(spec->num_layers(), 0) << text;
      ASSERT_GT(spec->hidden_size, 0) << text;
      ASSERT_GT(spec->vocab_size, 0) << text;
    }
  }
  EXPECT_GT(accepted, 100);
}

TEST(ConfigFuzzTest, MutantsOfQuantizationConfigAreRefusedOrSane) {
  const std::string seed =
      R"({"model_type":"llama","quantization_config":{"quant_method":"compressed-tensors",)"
      R"("format":"pack-quantized","ignore":["lm_head"],"config_groups":{"group_w4_g128":{)"
      R"("targets":["re:^a$"],"weights":{"num_bits":4,"type":"int","symmetric":true,)"
      R"("strategy":"group","group_size":128,"dynamic":false},"input_activations":null,)"
      R"("output_activations":null,"format":"pack-quantized"}}}})";
  ASSERT_OK(ReadQuantizationConfig(seed, "seed"));
  Mutator mutator(3, {"-1", "0", "1e308", "null", "{}", "[]", "\"", "17", "\"channel\"", "64",
                      "99999999999999999999", "false", "\"int\"", "\xc3\x28", "group_size"});
  for (int i = 0; i < 20000; ++i) {
    const std::string text = mutator.Mutate(seed);
    const auto formats = ReadQuantizationConfig(text, "mutant");
    if (!formats.ok()) {
      ASSERT_FALSE(absl::IsInternal(formats.status())) << formats.status() << "\n" << text;
      continue;
    }
    for (const WeightFormat* format : *formats) {
      ASSERT_NE(format->grid(), nullptr) << text;
      ASSERT_TRUE(format->grid()->bits() >= 1 && format->grid()->bits() <= 8) << text;
      ASSERT_GE(format->grid()->group_size(), 0) << text;
    }
  }
}

}  // namespace
}  // namespace lwq::testing

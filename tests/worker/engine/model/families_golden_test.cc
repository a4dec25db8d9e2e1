// Every family against logits that transformers recorded (tests/golden/families/record.py): small
// random models with the family's quirks switched on, and sequences longer than windows and than
// what rotary embeddings were trained with.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <set>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/whole_logits.h"
#include "tests/worker/engine/model/golden_tensors.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/model/decoder.h"
#include "worker/engine/model/families.h"

namespace lwq::testing {
namespace {

constexpr char kFamilies[] = LWQ_SOURCE_DIR "/tests/golden/families";

// A case has the family's name, or "llama-" and the kind of rotary embedding: then llama's weights.
std::string WeightsOf(const std::string& name) {
  return JoinPath(kFamilies, name.rfind("llama", 0) == 0 ? "llama" : name);
}

// `config`: the directory of config.json.
absl::StatusOr<Matrix> Logits(const std::string& config, const std::string& weights_directory,
                              const std::string& device_name, const TokenBatch& batch) {
  LWQ_ASSIGN_OR_RETURN(auto device, MakeDevice({.device = device_name, .num_threads = 2}));
  LWQ_ASSIGN_OR_RETURN(DecoderSpec spec, ReadDecoderSpec(config));
  LWQ_ASSIGN_OR_RETURN(auto checkpoint, Checkpoint::Open(weights_directory));
  LWQ_RETURN_IF_ERROR(TakeInventory(spec, *checkpoint).status());
  const auto weights = MakeCheckpointWeights(checkpoint.get());
  LWQ_ASSIGN_OR_RETURN(auto decoder,
                       Decoder::Create(spec, weights.get(), device.get(), ComputeType::kF32));
  Matrix hidden(batch.num_tokens(), spec.hidden_size);
  LWQ_RETURN_IF_ERROR(RunAllLayers(*decoder, batch, hidden.view()));
  return testing::WholeLogits(*decoder, hidden.view());
}

TokenBatch Recorded(const SafetensorsFile& file) {
  const auto tokens = ReadGolden<int32_t>(file, "tokens");
  TokenBatch batch;
  size_t begin = 0;
  for (const int32_t length : ReadGolden<int32_t>(file, "lengths").values) {
    batch.Add(absl::MakeConstSpan(tokens.values).subspan(begin, static_cast<size_t>(length)));
    begin += static_cast<size_t>(length);
  }
  EXPECT_EQ(begin, tokens.values.size());
  return batch;
}

double LargestDifference(const Matrix& found, const std::vector<float>& expected) {
  if (static_cast<size_t>(found.size()) != expected.size()) return INFINITY;
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    worst = std::max(worst, std::abs(double{found.data()[i]} - expected[i]));
  }
  return worst;
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> OpenRecord(const std::string& name) {
  return SafetensorsFile::Open(JoinPath(JoinPath(kFamilies, name), "logits.safetensors"));
}

class FamilyGolden : public ::testing::TestWithParam<const char*> {};

// Logits up to 5 after two layers: 2e-5 is 70 roundings of the largest in F32. Rotations of
// sequences that are stretched start from frequencies that transformers rounds in another order,
// and turn up to 44 times by them: that is in it.
TEST_P(FamilyGolden, GivesTheLogitsOfTransformers) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto file, OpenRecord(GetParam()));
  const auto expected = ReadGolden<float>(*file, "logits");
  const std::string config = JoinPath(kFamilies, GetParam());
  for (const char* device : {"cpu", "reference"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const Matrix found,
                             Logits(config, WeightsOf(GetParam()), device, Recorded(*file)));
    const double worst = LargestDifference(found, expected.values);
    RecordProperty(std::string(device) + "_max_abs_logit_difference", std::to_string(worst));
    EXPECT_LT(worst, 2e-5) << device;
  }
}

constexpr const char* kCases[] = {
    "llama",          "llama-linear", "llama-dynamic", "llama-llama3", "llama-yarn", "mistral",
    "llama-longrope", "qwen2",        "qwen3",         "phi3",         "gemma2",     "gemma3",
    "mixtral",        "qwen2_moe",    "qwen3_moe",     "qwen",         "qwen-bias"};

INSTANTIATE_TEST_SUITE_P(Cases, FamilyGolden, ::testing::ValuesIn(kCases), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

// A field of a case's config.json, and what it says instead.
struct Quirk {
  const char *name, *field, *other;
};

// The records would show it if any of these were ignored.
TEST(FamilyGoldenCases, EveryQuirkIsFelt) {
  const Quirk quirks[] = {
      {"llama-linear", "\"factor\": 4.0", "\"factor\": 4.5"},
      {"llama-dynamic", "\"factor\": 3.0", "\"factor\": 3.5"},
      {"llama-dynamic", "\"max_position_embeddings\": 24", "\"max_position_embeddings\": 25"},
      {"llama-llama3", "\"high_freq_factor\": 4.0", "\"high_freq_factor\": 5.0"},
      {"llama-yarn", "\"factor\": 4.0", "\"factor\": 4.5"},
      {"llama-yarn", "\"beta_fast\": 3.0", "\"beta_fast\": 2.0"},
      {"llama-yarn", "\"truncate\": false", "\"truncate\": true"},
      {"llama-longrope", "\"original_max_position_embeddings\": 24",
       "\"original_max_position_embeddings\": 44"},
      {"mistral", "\"sliding_window\": 8", "\"sliding_window\": 9"},
      {"qwen2", "\"sliding_window\": 8", "\"sliding_window\": 9"},
      {"mixtral", "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 3"},
      {"qwen2_moe", "\"norm_topk_prob\": false", "\"norm_topk_prob\": true"},
      {"qwen2_moe", "\"sliding_window\": 8", "\"sliding_window\": 9"},
      {"qwen3_moe", "\"norm_topk_prob\": true", "\"norm_topk_prob\": false"},
      {"qwen3_moe", "\"sliding_window\": 8", "\"sliding_window\": 9"},
      {"phi3", "\"sliding_window\": 8", "\"sliding_window\": null"},
      {"phi3", "\"rope_theta\": 1000.0", "\"rope_theta\": 900.0"},
      {"gemma2", "\"attn_logit_softcapping\": 4.0", "\"attn_logit_softcapping\": null"},
      {"gemma2", "\"final_logit_softcapping\": 12.0", "\"final_logit_softcapping\": null"},
      {"gemma2", "\"query_pre_attn_scalar\": 24", "\"query_pre_attn_scalar\": 16"},
      {"gemma2", "\"hidden_activation\": \"gelu_pytorch_tanh\"", "\"hidden_activation\": \"silu\""},
      {"gemma3", "\"rope_theta\": 100.0", "\"rope_theta\": 110.0"},
      {"gemma3", "\"rope_theta\": 5000.0", "\"rope_theta\": 6000.0"},
      {"gemma3", "\"factor\": 4.0", "\"factor\": 4.5"},
      {"qwen", "\"rotary_emb_base\": 1000.0", "\"rotary_emb_base\": 900.0"},
      {"qwen", "\"layer_norm_epsilon\": 1e-05", "\"layer_norm_epsilon\": 1e-02"}};
  for (const Quirk& quirk : quirks) {
    LWQ_ASSERT_OK_AND_ASSIGN(const auto file, OpenRecord(quirk.name));
    LWQ_ASSERT_OK_AND_ASSIGN(
        std::string text,
        ReadFile(JoinPath(JoinPath(kFamilies, quirk.name), "config.json"), 1 << 20));
    const size_t at = text.find(quirk.field);
    ASSERT_NE(at, std::string::npos) << quirk.name << " " << quirk.field;
    text.replace(at, std::strlen(quirk.field), quirk.other);
    LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory changed, TempDirectory::Create());
    ASSERT_OK(WriteFileAtomically(JoinPath(changed.path(), "config.json"), text));
    LWQ_ASSERT_OK_AND_ASSIGN(const Matrix found,
                             Logits(changed.path(), WeightsOf(quirk.name), "cpu", Recorded(*file)));
    EXPECT_GT(LargestDifference(found, ReadGolden<float>(*file, "logits").values), 1e-3)
        << quirk.name << " " << quirk.other;
  }
}

TEST(FamilyGoldenCases, EveryFamilyHasOne) {
  const std::set<std::string> cases(std::begin(kCases), std::end(kCases));
  for (const ModelFamilyDef* family : ModelFamilies()) {
    EXPECT_TRUE(cases.contains(std::string(family->name))) << family->name;
  }
}

}  // namespace
}  // namespace lwq::testing

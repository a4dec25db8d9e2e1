// The forward pass against logits that transformers recorded (tests/golden/decoder/make_logits.py).
#include <cmath>
#include <memory>

#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/whole_logits.h"
#include "tests/worker/engine/model/golden_tensors.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/model/decoder.h"

namespace lwq {
namespace {

std::string GoldenPath(const std::string& name) {
  return LWQ_SOURCE_DIR "/tests/golden/decoder/" + name;
}

struct Difference {
  double logit = 0;    // largest absolute difference of a logit
  double log_sum = 0;  // and of a row's log of the sum of exponentials
};

// Runs the model over the recorded tokens and compares.
absl::StatusOr<Difference> Compare(const std::string& model, const std::string& golden_file,
                                   const DeviceOptions& options) {
  LWQ_ASSIGN_OR_RETURN(auto device, MakeDevice(options));
  LWQ_ASSIGN_OR_RETURN(DecoderSpec spec, ReadDecoderSpec(model));
  LWQ_ASSIGN_OR_RETURN(auto checkpoint, Checkpoint::Open(model));
  auto weights = MakeCheckpointWeights(checkpoint.get());
  LWQ_ASSIGN_OR_RETURN(auto decoder,
                       Decoder::Create(spec, weights.get(), device.get(), ComputeType::kF32));
  LWQ_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(golden_file));
  const auto tokens = testing::ReadGolden<int32_t>(*file, "tokens");
  const auto columns = testing::ReadGolden<int32_t>(*file, "columns");
  const auto logits = testing::ReadGolden<float>(*file, "logits");
  const auto log_sum = testing::ReadGolden<float>(*file, "log_sum");
  TokenBatch batch;
  const size_t length = static_cast<size_t>(tokens.shape[1]);
  for (size_t s = 0; s < static_cast<size_t>(tokens.shape[0]); ++s) {
    batch.Add(absl::MakeConstSpan(tokens.values).subspan(s * length, length));
  }
  Matrix hidden(batch.num_tokens(), spec.hidden_size);
  LWQ_RETURN_IF_ERROR(RunAllLayers(*decoder, batch, hidden.view()));
  LWQ_ASSIGN_OR_RETURN(const Matrix host, testing::WholeLogits(*decoder, hidden.view()));
  Difference difference;
  for (int64_t t = 0; t < hidden.rows(); ++t) {
    const float* row = host.Row(t);
    for (int64_t i = 0; i < 8; ++i) {
      const size_t at = static_cast<size_t>(t * 8 + i);
      difference.logit =
          std::max(difference.logit, std::abs(double{row[columns.values[at]]} - logits.values[at]));
    }
    double sum = 0;
    for (int64_t v = 0; v < spec.vocab_size; ++v) sum += std::exp(double{row[v]});
    difference.log_sum = std::max(difference.log_sum,
                                  std::abs(std::log(sum) - log_sum.values[static_cast<size_t>(t)]));
  }
  return difference;
}

// F32 rounds to 6e-8 of a value; logits reach 20 after 12 layers whose sums are taken in another
// order than torch's, each adding a few roundings: 1e-4 is 80 roundings of the largest logit.
constexpr double kSampleTolerance = 1e-4;

TEST(DecoderGolden, SampleModelGivesTheLogitsOfTransformersOver2000Tokens) {
  LWQ_ASSERT_OK_AND_ASSIGN(
      const Difference difference,
      Compare(testing::SampleModelPath(), GoldenPath("sample_logits.safetensors"),
              {.device = "cpu", .num_threads = 2}));
  RecordProperty("max_abs_logit_difference", std::to_string(difference.logit));
  EXPECT_LT(difference.logit, kSampleTolerance);
  EXPECT_LT(difference.log_sum, kSampleTolerance);
}

// Untied head, grouped queries, llama3 rotary embedding, head size 12, F32, two shards.
TEST(DecoderGolden, TinyModelGivesTheLogitsOfTransformers) {
  for (const char* device : {"cpu", "reference"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const Difference difference,
                             Compare(GoldenPath("tiny"), GoldenPath("tiny_logits.safetensors"),
                                     {.device = device, .num_threads = 2}));
    // Two layers and logits up to 10: 2e-5 is 30 roundings of the largest.
    EXPECT_LT(difference.logit, 2e-5) << device;
    EXPECT_LT(difference.log_sum, 2e-5) << device;
  }
}

}  // namespace
}  // namespace lwq

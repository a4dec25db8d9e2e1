// Log-likelihoods, accuracies and perplexities equal what lm-evaluation-harness recorded for the
// sample model (tests/peers/record_lm_eval.py wrote tests/golden/lm-eval-sample.json).
#include <cmath>
#include <fstream>
#include <memory>
#include <string>

#include "base/file.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/eval/dataset.h"
#include "worker/engine/eval/multiple_choice.h"
#include "worker/engine/eval/perplexity.h"
#include "worker/engine/eval/text_windows.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/model/weight_source.h"

namespace lwq {
namespace {

using Json = nlohmann::json;

// Both sides sum f32 in another order: about 1e-6 a token and layer, a few dozen tokens an option.
constexpr double kLogLikelihoodTolerance = 1e-3;
constexpr double kPerplexityTolerance = 1e-4;  // relative

class EvaluationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string path = testing::SampleModelPath();
    LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec, ReadDecoderSpec(path));
    LWQ_ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(path));
    weights_ = MakeCheckpointWeights(checkpoint_.get());
    LWQ_ASSERT_OK_AND_ASSIGN(device_, MakeDevice({.device = "cpu", .num_threads = 1}));
    LWQ_ASSERT_OK_AND_ASSIGN(
        decoder_, Decoder::Create(spec, weights_.get(), device_.get(), ComputeType::kF32));
    LWQ_ASSERT_OK_AND_ASSIGN(tokenizer_, LoadTokenizer(path));
    std::ifstream file(LWQ_SOURCE_DIR "/tests/golden/lm-eval-sample.json");
    golden_ = Json::parse(file)["tasks"];
  }

  void ExpectAsRecorded(const std::string& task, const std::string& bytes,
                        const std::string& labels = "") {
    const Json& expected = golden_[task];
    const size_t count = expected["items"].size();
    LWQ_ASSERT_OK_AND_ASSIGN(const ChoiceDataset data,
                             ReadChoiceDataset(bytes, static_cast<int64_t>(count), labels));
    LWQ_ASSERT_OK_AND_ASSIGN(const RequestEncoder encoder,
                             RequestEncoder::Create(tokenizer_.get(), BosMode::kTokenizer));
    LWQ_ASSERT_OK_AND_ASSIGN(const MultipleChoiceResult result,
                             EvaluateMultipleChoice(*decoder_, encoder, data.items, {}));
    ASSERT_EQ(result.items.size(), count);
    for (size_t i = 0; i < count; ++i) {
      for (size_t j = 0; j < expected["items"][i].size(); ++j) {
        EXPECT_NEAR(result.items[i].log_likelihoods[j], expected["items"][i][j][0].get<double>(),
                    kLogLikelihoodTolerance)
            << task << " item " << i << " option " << j;
        EXPECT_EQ(result.items[i].is_greedy[j], expected["items"][i][j][1].get<bool>());
      }
    }
    const Json& figures = expected["results"];
    EXPECT_EQ(result.acc, figures["acc"].get<double>());
    EXPECT_EQ(result.acc_norm, figures["acc_norm"].get<double>());
    EXPECT_NEAR(result.acc_stderr, figures["acc_stderr"].get<double>(), 1e-12);
    EXPECT_NEAR(result.acc_norm_stderr, figures["acc_norm_stderr"].get<double>(), 1e-12);
  }

  void ExpectSharedAsRecorded(const std::string& task, const std::string& file,
                              const std::string& labels_file = "") {
    LWQ_ASSERT_OK_AND_ASSIGN(const std::string bytes,
                             ReadFile(testing::SharedDataPath(file), 64 << 20));
    std::string labels;
    if (!labels_file.empty()) {
      LWQ_ASSERT_OK_AND_ASSIGN(labels, ReadFile(testing::SharedDataPath(labels_file), 1 << 20));
    }
    ExpectAsRecorded(task, bytes, labels);
  }

  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<WeightSource> weights_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<Tokenizer> tokenizer_;
  Json golden_;
};

TEST_F(EvaluationTest, SampleChoices) {
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string bytes,
                           ReadFile(testing::SampleModelPath() + "/choices.jsonl", 1 << 20));
  ExpectAsRecorded("lwq_choices", bytes);
}

TEST_F(EvaluationTest, Piqa) {
  LWQ_SKIP_WITHOUT_SHARED_DATA("piqa/valid.jsonl");
  ExpectSharedAsRecorded("lwq_piqa", "piqa/valid.jsonl", "piqa/valid-labels.lst");
}

TEST_F(EvaluationTest, ArcEasy) {
  LWQ_SKIP_WITHOUT_SHARED_DATA("arc_easy/test.jsonl");
  ExpectSharedAsRecorded("lwq_arc_easy", "arc_easy/test.jsonl");
}

TEST_F(EvaluationTest, Hellaswag) {
  LWQ_SKIP_WITHOUT_SHARED_DATA("hellaswag/val-1000.jsonl");
  ExpectSharedAsRecorded("lwq_hellaswag", "hellaswag/val-1000.jsonl");
}

TEST_F(EvaluationTest, RollingPerplexity) {
  const Json& expected = golden_["lwq_rolling"];
  const auto texts = expected["texts"].get<std::vector<std::string>>();
  LWQ_ASSERT_OK_AND_ASSIGN(const RequestEncoder encoder,
                           RequestEncoder::Create(tokenizer_.get(), BosMode::kTokenizer));
  LWQ_ASSERT_OK_AND_ASSIGN(const RollingResult result,
                           RollingPerplexity(*decoder_, encoder, texts, {}));
  for (size_t i = 0; i < texts.size(); ++i) {
    const double log_likelihood = expected["log_likelihoods"][i];
    EXPECT_NEAR(result.log_likelihoods[i] / log_likelihood, 1, kPerplexityTolerance);
  }
  EXPECT_NEAR(result.word_perplexity / expected["results"]["word_perplexity"].get<double>(), 1,
              kPerplexityTolerance);
}

TEST_F(EvaluationTest, RollingFigures) {
  const Json& expected = golden_["lwq_rolling"];
  const Json& figures = expected["results"];
  const RollingResult result =
      SummarizeRolling(expected["log_likelihoods"].get<std::vector<double>>(), 0,
                       expected["texts"].get<std::vector<std::string>>());
  EXPECT_NEAR(result.word_perplexity / figures["word_perplexity"].get<double>(), 1, 1e-12);
  EXPECT_NEAR(result.byte_perplexity / figures["byte_perplexity"].get<double>(), 1, 1e-12);
  EXPECT_NEAR(result.bits_per_byte / figures["bits_per_byte"].get<double>(), 1, 1e-12);
}

TEST_F(EvaluationTest, DivergenceFromItselfIsZero) {
  LWQ_ASSERT_OK_AND_ASSIGN(const RequestEncoder encoder,
                           RequestEncoder::Create(tokenizer_.get(), BosMode::kTokenizer));
  LWQ_ASSERT_OK_AND_ASSIGN(DisjointWindows cut, DisjointWindows::Create(&encoder, 128, 3));
  ASSERT_OK(cut.Add(golden_["lwq_rolling"]["texts"][0].get<std::string>()).status());
  LWQ_ASSERT_OK_AND_ASSIGN(const TokenBatch windows, cut.Finish());
  LWQ_ASSERT_OK_AND_ASSIGN(const WindowResult result,
                           WindowPerplexity(*decoder_, decoder_.get(), windows, {}));
  EXPECT_EQ(result.num_tokens, 3 * 127);
  ASSERT_TRUE(result.divergence.has_value());
  EXPECT_EQ(result.divergence->num_tokens, 3 * 127);
  EXPECT_NEAR(result.divergence->mean, 0, 1e-12);
  EXPECT_EQ(result.divergence->top1_agreement, 1);
  // transformers 5.23, float32, the same three windows.
  EXPECT_NEAR(result.token_perplexity / 50.594790361553578, 1, kPerplexityTolerance);
}

TEST_F(EvaluationTest, CancelledByProgress) {
  LWQ_ASSERT_OK_AND_ASSIGN(const RequestEncoder encoder,
                           RequestEncoder::Create(tokenizer_.get(), BosMode::kTokenizer));
  EvalOptions options;
  options.progress = [](double) { return absl::CancelledError("stop"); };
  EXPECT_THAT(RollingPerplexity(*decoder_, encoder, {"Some text."}, options),
              testing::StatusIs(absl::StatusCode::kCancelled, "stop"));
}

}  // namespace
}  // namespace lwq

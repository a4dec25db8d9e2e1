// A layer with experts: what its observers see, and how much of it is in memory. What it computes
// is judged by families_golden_test.cc, and on every device by decoder_on_devices_test.cc.
#include "worker/engine/model/sparse_run.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "base/file.h"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/io/checkpoint.h"

namespace lwq {
namespace {

class SparseRunTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { Open(2); }

  void Open(int threads) {
    const std::string model = std::string(LWQ_SOURCE_DIR "/tests/golden/families/") + GetParam();
    LWQ_ASSERT_OK_AND_ASSIGN(device_, MakeDevice({.device = "cpu", .num_threads = threads}));
    LWQ_ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(model));
    weights_ = MakeCheckpointWeights(checkpoint_.get());
    LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec, ReadDecoderSpec(model));
    LWQ_ASSERT_OK_AND_ASSIGN(
        decoder_, Decoder::Create(spec, weights_.get(), device_.get(), ComputeType::kF32));
    for (int i = 0; i < spec.num_layers(); ++i) {
      if (spec.layers[static_cast<size_t>(i)].experts.has_value()) sparse_ = i;
    }
    ASSERT_GE(sparse_, 0);
  }

  const LayerSpec& layer() const { return decoder_->spec().layers[static_cast<size_t>(sparse_)]; }

  static TokenBatch Batch(int sequences, int length) {
    TokenBatch batch;
    for (int i = 0; i < sequences; ++i) {
      std::vector<int32_t> tokens;
      for (int t = 0; t < length; ++t) tokens.push_back((t * 37 + i * 11) % 64);
      batch.Add(tokens);
    }
    return batch;
  }

  // The hidden states behind the layer, over those of the embedding.
  Matrix Run(const TokenBatch& batch, const LayerWeights& weights,
             const LinearInputObserver& observer = nullptr, absl::Span<double> cosines = {}) {
    Matrix hidden(batch.num_tokens(), decoder_->spec().hidden_size);
    EXPECT_OK(decoder_->Embed(batch.tokens, hidden.view()));
    EXPECT_OK(decoder_->RunLayer(weights, batch, hidden.view(), observer, cosines));
    return hidden;
  }

  std::unique_ptr<Device> device_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<WeightSource> weights_;
  std::unique_ptr<Decoder> decoder_;
  int sparse_ = -1;
};

bool SameBits(const Matrix& a, const Matrix& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), sizeof(float) * static_cast<size_t>(a.size())) == 0;
}

TEST_P(SparseRunTest, ObserversSeeEachExpertsTokensAndThenItsEnd) {
  const TokenBatch batch = Batch(50, 90);  // three chunks
  LWQ_ASSERT_OK_AND_ASSIGN(const LayerWeights weights, decoder_->LoadLayer(sparse_));
  std::map<size_t, int64_t> rows;
  std::set<size_t> open, finished;
  size_t most_open = 0;
  Run(batch, weights,
      {[&](size_t input, DeviceView<const float> x) {
         EXPECT_EQ(x.cols, layer().inputs[input].features);
         EXPECT_FALSE(finished.contains(input)) << layer().inputs[input].name;
         rows[input] += x.rows;
         if (layer().inputs[input].routed) open.insert(input);
         most_open = std::max(most_open, open.size());
         return absl::OkStatus();
       },
       [&](size_t input) {
         EXPECT_TRUE(finished.insert(input).second) << layer().inputs[input].name;
         open.erase(input);
         return absl::OkStatus();
       }});
  int64_t routed = 0, routed_inner = 0;
  for (size_t i = 0; i < layer().inputs.size(); ++i) {
    const InputSpec& input = layer().inputs[i];
    EXPECT_EQ(finished.contains(i), input.routed) << input.name;
    if (!input.routed) {
      EXPECT_EQ(rows[i], batch.num_tokens()) << input.name;
    } else if (input.features == decoder_->spec().hidden_size) {
      routed += rows[i];
    } else {
      routed_inner += rows[i];
    }
  }
  EXPECT_EQ(routed, batch.num_tokens() * layer().experts->per_token);
  EXPECT_EQ(routed_inner, routed);
  EXPECT_LE(most_open, 2 * kExpertsAtOnce);
}

// One token goes to few experts; the end of the others is told all the same, and nothing is loaded
// for them.
// Router and shared gate are no linears of a format: what experts round is none of theirs.
TEST_P(SparseRunTest, RoundedInputsOfExpertsDoNotChangeWhoGetsWhat) {
  const TokenBatch batch = Batch(4, 40);
  LWQ_ASSERT_OK_AND_ASSIGN(LayerWeights weights, decoder_->LoadLayer(sparse_));
  std::map<size_t, std::vector<float>> seen[2];
  Matrix outputs[2];
  for (const bool rounded : {false, true}) {
    for (size_t i = 0; rounded && i < layer().linears.size(); ++i) {
      const LinearRole role = layer().linears[i].shape.role;
      if (role == LinearRole::kGate || role == LinearRole::kUp) {
        weights.rules[i] = ActivationRule::kInt8PerToken;
      }
    }
    outputs[rounded] = Run(batch, weights, [&](size_t input, DeviceView<const float> x) {
      const std::string& name = layer().inputs[input].name;
      if (name.find("hidden") != std::string::npos) return absl::OkStatus();  // behind a gate
      Matrix host(x.rows, x.cols);
      LWQ_RETURN_IF_ERROR(device_->Download(x, host.view()));
      std::vector<float>& all = seen[rounded][input];
      all.insert(all.end(), host.data(), host.data() + host.size());
      return absl::OkStatus();
    });
  }
  EXPECT_EQ(seen[0], seen[1]);
  EXPECT_FALSE(SameBits(outputs[0], outputs[1]));
  double largest = 0, off = 0;
  for (int64_t i = 0; i < outputs[0].size(); ++i) {
    largest = std::max(largest, std::abs(double{outputs[0].data()[i]}));
    off = std::max(off, std::abs(double{outputs[1].data()[i]} - outputs[0].data()[i]));
  }
  EXPECT_LT(off, 0.05 * largest);
}

TEST_P(SparseRunTest, ExpertsWithoutTokensAreNotLoaded) {
  LWQ_ASSERT_OK_AND_ASSIGN(LayerWeights weights, decoder_->LoadLayer(sparse_));
  size_t loaded = 0, finished = 0;
  weights.load_expert = [&, load = weights.load_expert](size_t linear) {
    ++loaded;
    return load(linear);
  };
  Run(Batch(1, 1), weights,
      {[](size_t, DeviceView<const float>) { return absl::OkStatus(); },
       [&](size_t) {
         ++finished;
         return absl::OkStatus();
       }});
  EXPECT_EQ(loaded, 3 * static_cast<size_t>(layer().experts->per_token));
  EXPECT_EQ(finished, 2 * static_cast<size_t>(layer().experts->num_experts));
}

TEST_P(SparseRunTest, FewExpertsAreInMemoryAtATime) {
  LWQ_ASSERT_OK_AND_ASSIGN(LayerWeights weights, decoder_->LoadLayer(sparse_));
  size_t loaded = 0, held = 0, most = 0;
  weights.load_expert =
      [&, load = weights.load_expert](
          size_t linear) -> absl::StatusOr<std::shared_ptr<const PreparedWeight>> {
    EXPECT_EQ(weights.linears[linear], nullptr);
    absl::StatusOr<std::shared_ptr<const PreparedWeight>> weight = load(linear);
    if (!weight.ok()) return weight;
    most = std::max(most, ++held);
    ++loaded;
    const PreparedWeight* raw = weight->get();
    return std::shared_ptr<const PreparedWeight>(
        raw, [&held, kept = *std::move(weight)](const PreparedWeight*) { --held; });
  };
  Run(Batch(50, 90), weights);
  EXPECT_EQ(loaded, 3 * static_cast<size_t>(layer().experts->num_experts)) << "each once";
  EXPECT_EQ(held, 0u);
  EXPECT_LE(most, 3 * kExpertsAtOnce);
}

TEST_P(SparseRunTest, CosinesAreOfEachTokensInputAndOutput) {
  const TokenBatch batch = Batch(30, 90);
  LWQ_ASSERT_OK_AND_ASSIGN(const LayerWeights weights, decoder_->LoadLayer(sparse_));
  Matrix before(batch.num_tokens(), decoder_->spec().hidden_size);
  ASSERT_OK(decoder_->Embed(batch.tokens, before.view()));
  std::vector<double> cosines(static_cast<size_t>(batch.num_tokens()));
  const Matrix after = Run(batch, weights, nullptr, absl::MakeSpan(cosines));
  for (int64_t r = 0; r < before.rows(); ++r) {
    double xy = 0, xx = 0, yy = 0;
    for (int64_t c = 0; c < before.cols(); ++c) {
      const double x = before.Row(r)[c], y = after.Row(r)[c];
      xy += x * y, xx += x * x, yy += y * y;
    }
    ASSERT_NEAR(cosines[static_cast<size_t>(r)], xy / std::sqrt(xx * yy), 1e-12) << r;
  }
}

TEST_P(SparseRunTest, ThreadsAndScratchFilesDoNotChangeABit) {
  const TokenBatch batch = Batch(30, 90);
  LWQ_ASSERT_OK_AND_ASSIGN(const LayerWeights weights, decoder_->LoadLayer(sparse_));
  std::vector<double> cosines(static_cast<size_t>(batch.num_tokens())), again = cosines;
  const Matrix two = Run(batch, weights, nullptr, absl::MakeSpan(cosines));
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory scratch, TempDirectory::Create());
  decoder_->set_scratch_directory(scratch.path());
  EXPECT_TRUE(SameBits(two, Run(batch, weights, nullptr, absl::MakeSpan(again))));
  EXPECT_EQ(cosines, again);
  Open(3);
  LWQ_ASSERT_OK_AND_ASSIGN(const LayerWeights others, decoder_->LoadLayer(sparse_));
  EXPECT_TRUE(SameBits(two, Run(batch, others)));
}

INSTANTIATE_TEST_SUITE_P(Families, SparseRunTest,
                         ::testing::Values("mixtral", "qwen2_moe", "qwen3_moe"));

}  // namespace
}  // namespace lwq

// The head in parts: what is read from them is what whole rows of logits say, by its definition in
// F64. The shapes are such that tokens and rows are both cut, the last part shorter.
#include "worker/engine/model/head_pass.h"

#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "tests/testing/test_devices.h"
#include "tests/testing/whole_logits.h"
#include "worker/engine/model/head_reading.h"

namespace lwq {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kHidden = 1024;
constexpr int64_t kVocabulary = 9000;
constexpr int64_t kRows = 1030;

// A head, and norms of ones; no layer is ever loaded.
class MadeHead : public WeightSource {
 public:
  explicit MadeHead(float scale) : scale_(scale) {}
  absl::Status ReadLinear(absl::string_view module, MatrixView) const override {
    return absl::UnimplementedError(absl::StrCat("a head has no ", module));
  }
  absl::Status ReadDense(absl::string_view tensor, int64_t first, MatrixView out) const override {
    const bool norm = tensor == "model.norm.weight";
    for (int64_t r = 0; r < out.rows; ++r) {
      for (int64_t c = 0; c < out.cols; ++c) {
        out.Row(r)[c] = norm ? 1.0f : Weight(first + r, c);
      }
    }
    return absl::OkStatus();
  }
  absl::Status LoadDense(absl::string_view tensor, int64_t first, Device* device,
                         DeviceView<float> out) const override {
    most_rows_ = std::max(most_rows_, out.rows);
    num_rows_ += out.rows;
    return WeightSource::LoadDense(tensor, first, device, out);
  }
  bool HasDense(absl::string_view) const override { return true; }

  float Weight(int64_t token, int64_t c) const {
    const uint32_t mixed = static_cast<uint32_t>(token * 7919 + c * 104729 + 1) * 2654435761u;
    return scale_ * (static_cast<float>(mixed >> 8) * 0x1p-23f - 1.0f);
  }
  // Of the head, loaded at once, and in all.
  int64_t most_rows() const { return most_rows_; }
  int64_t num_rows() const { return num_rows_; }

 private:
  const float scale_;
  mutable int64_t most_rows_ = 0, num_rows_ = 0;
};

DecoderSpec SpecWith(double softcap) {
  TempDirectory directory = TempDirectory::Create().value();
  EXPECT_OK(WriteFileAtomically(JoinPath(directory.path(), "config.json"),
                                absl::StrCat(R"({
      "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
      "hidden_size": )",
                                             kHidden, R"(, "vocab_size": )", kVocabulary, R"(,
      "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 16,
      "num_key_value_heads": 16, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
      "rope_theta": 10000.0, "tie_word_embeddings": true})")));
  DecoderSpec spec = ReadDecoderSpec(directory.path()).value();
  spec.logit_softcap = softcap;
  return spec;
}

Matrix Hidden(int64_t rows, float shift) {
  Matrix hidden(rows, kHidden);
  for (int64_t i = 0; i < hidden.size(); ++i) {
    const uint32_t mixed = static_cast<uint32_t>(i) * 2654435761u;
    hidden.data()[i] =
        static_cast<float>(mixed >> 8) * 0x1p-23f - 1.0f + (i % 7 == 0 ? shift : 0.0f);
  }
  return hidden;
}

// A logit by its definition: the dot product with the normed hidden state, capped.
double Logit(const MadeHead& head, const Matrix& hidden, int64_t row, int64_t token,
             double softcap) {
  double squares = 0, dot = 0;
  for (int64_t c = 0; c < kHidden; ++c) {
    squares += double{hidden.Row(row)[c]} * hidden.Row(row)[c];
    dot += double{hidden.Row(row)[c]} * head.Weight(token, c);
  }
  const double logit = dot / std::sqrt(squares / kHidden + 1e-5);
  return softcap > 0 ? softcap * std::tanh(logit / softcap) : logit;
}

double LogTotal(const Matrix& logits, int64_t row) {
  double total = 0;
  for (int64_t v = 0; v < logits.cols(); ++v) total += std::exp(double{logits.Row(row)[v]});
  return std::log(total);
}

class HeadPassTest : public ::testing::Test {
 protected:
  std::unique_ptr<Decoder> MakeDecoder(const WeightSource& weights, double softcap,
                                       Device* device) {
    return Decoder::Create(SpecWith(softcap), &weights, device, ComputeType::kF32).value();
  }
  const std::unique_ptr<Device> device_ = MakeDevice({.device = "cpu", .num_threads = 2}).value();
};

TEST_F(HeadPassTest, ReadsWhatWholeRowsSay) {
  const MadeHead ours(0.1f), theirs(0.2f);
  const Matrix states = Hidden(kRows, 0), others = Hidden(kRows, 0.05f);
  std::vector<TokenTarget> targets;
  for (int64_t i = 0; i < 4000; ++i) {
    targets.push_back({i * 37 % kRows, static_cast<int32_t>(i * 4241 % kVocabulary)});
  }
  for (const double softcap : {0.0, 5.0}) {
    const auto source = MakeDecoder(ours, softcap, device_.get());
    const auto candidate = MakeDecoder(theirs, softcap, device_.get());
    const HeadRows source_head = HeadOf(*source), head = HeadOf(*candidate);
    HeadPass pass;
    pass.sides = {{source.get(), &source_head, states.view()},
                  {candidate.get(), &head, others.view()}};
    LWQ_ASSERT_OK_AND_ASSIGN(const HeadReading reading, ReadHead(pass, targets));
    LWQ_ASSERT_OK_AND_ASSIGN(const Matrix p, testing::WholeLogits(*source, states.view()));
    LWQ_ASSERT_OK_AND_ASSIGN(const Matrix q, testing::WholeLogits(*candidate, others.view()));
    double largest = 0;
    for (const int64_t r : {int64_t{0}, int64_t{511}, int64_t{1024}, kRows - 1}) {
      const size_t at = static_cast<size_t>(r);
      const double log_p = LogTotal(p, r), log_q = LogTotal(q, r);
      double kl = 0;
      for (int64_t v = 0; v < kVocabulary; ++v) {
        const double a = p.Row(r)[v] - log_p;
        kl += std::exp(a) * (a - (q.Row(r)[v] - log_q));
      }
      // The terms are rounded to F32; what they are the means of is below 1.
      EXPECT_NEAR(reading.kl[0][at], kl, 1e-6);
      for (const int64_t token : {int64_t{0}, int64_t{4095}, int64_t{4096}, kVocabulary - 1}) {
        // Sums of 1,024 products of about 1/16 each.
        EXPECT_NEAR(p.Row(r)[token], Logit(ours, states, r, token, softcap), 1e-5);
      }
      largest = std::max(largest, kl);
      EXPECT_EQ(reading.best[0][at], std::max_element(p.Row(r), p.Row(r) + kVocabulary) - p.Row(r));
      EXPECT_EQ(reading.best[1][at], std::max_element(q.Row(r), q.Row(r) + kVocabulary) - q.Row(r));
    }
    EXPECT_GT(largest, 1e-3);  // or the comparison would say nothing
    for (size_t i = 0; i < targets.size(); i += 97) {
      EXPECT_NEAR(reading.log_probability[i],
                  q.Row(targets[i].row)[targets[i].token] - LogTotal(q, targets[i].row), 1e-6);
    }
  }
}

TEST_F(HeadPassTest, LoadsEachRowOfASharedHeadOnceAndNeverMany) {
  const MadeHead weights(0.1f);
  const auto decoder = MakeDecoder(weights, 0, device_.get());
  const HeadRows head = HeadOf(*decoder);
  const Matrix states = Hidden(20, 0);
  HeadPass pass;
  pass.sides = {{decoder.get(), &head, states.view()}, {decoder.get(), &head, states.view()}};
  LWQ_ASSERT_OK_AND_ASSIGN(const HeadReading reading, ReadHead(pass));
  EXPECT_EQ(weights.num_rows(), kVocabulary);
  EXPECT_LE(weights.most_rows() * kHidden, int64_t{1} << 22);
  EXPECT_THAT(reading.kl[0], ::testing::Each(0.0));
}

TEST_F(HeadPassTest, OnlyTheRowsAskedForPass) {
  const MadeHead weights(0.1f);
  const auto decoder = MakeDecoder(weights, 0, device_.get());
  const HeadRows head = HeadOf(*decoder);
  const Matrix states = Hidden(kRows, 0);
  HeadPass pass;
  pass.sides = {{decoder.get(), &head, states.view()}};
  const std::vector<TokenTarget> all = {{3, 8999}, {1029, 0}, {1029, 4096}};
  LWQ_ASSERT_OK_AND_ASSIGN(const HeadReading whole, ReadHead(pass, all));
  const std::vector<int64_t> rows = {3, 1029};
  pass.rows = rows;
  const std::vector<TokenTarget> by_place = {{0, 8999}, {1, 0}, {1, 4096}};
  LWQ_ASSERT_OK_AND_ASSIGN(const HeadReading some, ReadHead(pass, by_place));
  EXPECT_EQ(some.best[0].size(), 2u);
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_NEAR(some.log_probability[i], whole.log_probability[i], 1e-6);
  }
}

TEST_F(HeadPassTest, BitsAreTheSameForAnyThreads) {
  const MadeHead ours(0.1f), theirs(0.2f);
  const Matrix states = Hidden(kRows, 0);
  std::vector<double> first;
  for (const int threads : {1, 3}) {
    const auto device = MakeDevice({.device = "cpu", .num_threads = threads}).value();
    const auto source = MakeDecoder(ours, 0, device.get());
    const auto candidate = MakeDecoder(theirs, 0, device.get());
    const HeadRows source_head = HeadOf(*source), head = HeadOf(*candidate);
    HeadPass pass;
    pass.sides = {{source.get(), &source_head, states.view()},
                  {candidate.get(), &head, states.view()}};
    LWQ_ASSERT_OK_AND_ASSIGN(const HeadReading reading, ReadHead(pass));
    if (first.empty()) first = reading.kl[0];
    EXPECT_EQ(reading.kl[0], first);
  }
}

TEST_F(HeadPassTest, WhatDoesNotFitIsRefused) {
  const MadeHead weights(0.1f);
  const auto decoder = MakeDecoder(weights, 0, device_.get());
  const HeadRows head = HeadOf(*decoder);
  const Matrix states = Hidden(2, 0);
  HeadPass pass;
  pass.sides = {{decoder.get(), &head, states.view()}};
  const std::vector<TokenTarget> outside = {{0, static_cast<int32_t>(kVocabulary)}};
  EXPECT_THAT(ReadHead(pass, outside),
              testing::FailsWith("TOKEN_OUT_OF_RANGE", HasSubstr("token 9000 is outside")));
  const std::vector<int64_t> rows = {2};
  pass.rows = rows;
  EXPECT_THAT(ReadHead(pass),
              testing::StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("row 2 of 2")));
  pass.rows = {};
  pass.progress = [](double) { return absl::CancelledError("enough"); };
  EXPECT_EQ(ReadHead(pass).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace lwq

// Packing, chunks and continuations: a token's hidden state depends on the tokens it sees, not on
// what else is in the batch, on threads or on how the batch is cut.
#include "worker/engine/model/decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>

#include "absl/strings/match.h"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/model/token_chunks.h"

namespace lwq {
namespace {

std::vector<int32_t> Sequence(int length, int seed) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < length; ++i) tokens.push_back((i * 37 + seed * 11) % 96);
  return tokens;
}

Matrix RunTiny(const TokenBatch& batch, int threads, ComputeType compute = ComputeType::kF32,
               const LinearInputObserver& observer = nullptr) {
  const std::string model = LWQ_SOURCE_DIR "/tests/golden/decoder/tiny";
  auto device = MakeDevice({.device = "cpu", .num_threads = threads}).value();
  auto checkpoint = Checkpoint::Open(model).value();
  auto weights = MakeCheckpointWeights(checkpoint.get());
  auto decoder =
      Decoder::Create(ReadDecoderSpec(model).value(), weights.get(), device.get(), compute).value();
  Matrix hidden(batch.num_tokens(), decoder->spec().hidden_size);
  EXPECT_OK(decoder->Embed(batch.tokens, hidden.view()));
  for (int layer = 0; layer < decoder->spec().num_layers(); ++layer) {
    auto loaded = decoder->LoadLayer(layer);
    EXPECT_OK(loaded);
    EXPECT_OK(decoder->RunLayer(*loaded, batch, hidden.view(), observer));
  }
  return hidden;
}

double Cosine(const float* x, const float* y, int64_t n) {
  double xy = 0, xx = 0, yy = 0;
  for (int64_t i = 0; i < n; ++i) {
    xy += double{x[i]} * y[i];
    xx += double{x[i]} * x[i];
    yy += double{y[i]} * y[i];
  }
  return xy / std::sqrt(xx * yy);
}

TEST(Decoder, CosinesAreOfEachTokensInputAndOutput) {
  const std::string model = LWQ_SOURCE_DIR "/tests/golden/decoder/tiny";
  auto device = MakeDevice({.device = "cpu", .num_threads = 2}).value();
  auto checkpoint = Checkpoint::Open(model).value();
  auto weights = MakeCheckpointWeights(checkpoint.get());
  auto decoder = Decoder::Create(ReadDecoderSpec(model).value(), weights.get(), device.get(),
                                 ComputeType::kF32)
                     .value();
  TokenBatch batch;
  for (int i = 0; i < 5; ++i) batch.Add(Sequence(500, i));  // two chunks
  Matrix before(batch.num_tokens(), decoder->spec().hidden_size);
  ASSERT_OK(decoder->Embed(batch.tokens, before.view()));
  Matrix after(before.rows(), before.cols());
  std::copy_n(before.data(), before.size(), after.data());
  std::vector<double> cosines(static_cast<size_t>(before.rows()));
  LWQ_ASSERT_OK_AND_ASSIGN(const LayerWeights layer, decoder->LoadLayer(0));
  ASSERT_OK(decoder->RunLayer(layer, batch, after.view(), nullptr, absl::MakeSpan(cosines)));
  for (int64_t r = 0; r < before.rows(); ++r) {
    ASSERT_NEAR(cosines[static_cast<size_t>(r)], Cosine(before.Row(r), after.Row(r), before.cols()),
                1e-12);
  }
  EXPECT_FALSE(
      decoder->RunLayer(layer, batch, after.view(), nullptr, absl::MakeSpan(cosines).first(3))
          .ok());
}

double LargestDifference(ConstMatrixView a, ConstMatrixView b) {
  double largest = 0;
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = 0; c < a.cols; ++c) {
      largest = std::max(largest, std::abs(double{a.Row(r)[c]} - b.Row(r)[c]));
    }
  }
  return largest;
}

// Hidden states stay below 20 here; two layers of F32 sums in another order move them by some eps
// times that.
constexpr double kTolerance = 2e-5;

TEST(Decoder, ContinuationsEqualTheSequencesWrittenOut) {
  const std::vector<int32_t> context = Sequence(40, 1);
  const std::vector<int32_t> choices[] = {Sequence(3, 2), Sequence(17, 3)};
  const std::vector<int32_t> tail = Sequence(5, 4);  // continues the second choice
  TokenBatch shared;
  const int root = shared.Add(context);
  shared.Add(Sequence(9, 9));  // somebody else between context and choices
  shared.Add(choices[0], root);
  const int second = shared.Add(choices[1], root);
  shared.Add(tail, second);
  const Matrix found = RunTiny(shared, 2);

  std::vector<int32_t> whole = context;
  whole.insert(whole.end(), choices[1].begin(), choices[1].end());
  whole.insert(whole.end(), tail.begin(), tail.end());
  TokenBatch alone;
  alone.Add(whole);
  const Matrix expected = RunTiny(alone, 2);
  EXPECT_LT(LargestDifference(found.view().Rows(0, 40), expected.view().Rows(0, 40)), kTolerance);
  EXPECT_LT(LargestDifference(found.view().Rows(52, 22), expected.view().Rows(40, 22)), kTolerance);
  // The first choice is another text.
  EXPECT_GT(LargestDifference(found.view().Rows(49, 3), expected.view().Rows(40, 3)), 0.1);
}

// Long sequences pass in parts, each of which sees those before it.
TEST(Decoder, ALongSequenceInPartsIsWhatItIsWhole) {
  for (const char* name : {"decoder/tiny", "families/phi3", "families/gemma3"}) {
    const std::string model = std::string(LWQ_SOURCE_DIR "/tests/golden/") + name;
    auto device = MakeDevice({.device = "cpu", .num_threads = 2}).value();
    auto checkpoint = Checkpoint::Open(model).value();
    auto weights = MakeCheckpointWeights(checkpoint.get());
    const DecoderSpec spec = ReadDecoderSpec(model).value();
    TokenBatch batch;
    for (const int length : {20, 70, 9, 50}) {
      std::vector<int32_t> tokens = Sequence(length, length);
      for (int32_t& token : tokens) token %= static_cast<int32_t>(spec.vocab_size);
      batch.Add(tokens);
    }
    std::vector<Matrix> found;
    for (const int64_t chunk : {Decoder::kChunkTokens, int64_t{16}, int64_t{33}}) {
      auto decoder = Decoder::Create(spec, weights.get(), device.get(), ComputeType::kF32).value();
      decoder->set_chunk_tokens(chunk);
      int64_t seen = 0;
      Matrix hidden(batch.num_tokens(), spec.hidden_size);
      ASSERT_OK(decoder->Embed(batch.tokens, hidden.view()));
      for (int layer = 0; layer < spec.num_layers(); ++layer) {
        LWQ_ASSERT_OK_AND_ASSIGN(const LayerWeights loaded, decoder->LoadLayer(layer));
        ASSERT_OK(decoder->RunLayer(loaded, batch, hidden.view(),
                                    [&](size_t input, DeviceView<const float> x) {
                                      EXPECT_LE(x.rows, chunk);
                                      seen += input == 0 ? x.rows : 0;
                                      return absl::OkStatus();
                                    }));
      }
      EXPECT_EQ(seen, batch.num_tokens() * spec.num_layers());
      found.push_back(std::move(hidden));
    }
    for (size_t i = 1; i < found.size(); ++i) {
      EXPECT_LT(LargestDifference(found[i].view(), found[0].view()), kTolerance) << name;
    }
  }
}

TEST(Decoder, ThreadsDoNotChangeABit) {
  TokenBatch batch;
  for (int i = 0; i < 9; ++i) batch.Add(Sequence(60 + i, i));
  for (ComputeType compute : {ComputeType::kF32, ComputeType::kBF16}) {
    const Matrix one = RunTiny(batch, 1, compute);
    for (int threads : {2, 3}) {
      const Matrix more = RunTiny(batch, threads, compute);
      EXPECT_EQ(
          std::memcmp(one.data(), more.data(), sizeof(float) * static_cast<size_t>(one.size())), 0)
          << NameOf(compute) << " with " << threads << " threads";
    }
  }
}

TEST(Decoder, ObserversSeeEveryTokenOfEveryInputInOrder) {
  TokenBatch batch;
  for (int i = 0; i < 45; ++i) batch.Add(Sequence(100, i));  // more than two chunks
  std::map<size_t, int64_t> rows, cols;
  RunTiny(batch, 2, ComputeType::kF32, [&](size_t input, DeviceView<const float> x) {
    EXPECT_LE(x.rows, Decoder::kChunkTokens);
    rows[input] += x.rows;
    cols[input] = x.cols;
    return absl::OkStatus();
  });
  LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec,
                           ReadDecoderSpec(LWQ_SOURCE_DIR "/tests/golden/decoder/tiny"));
  const std::vector<InputSpec>& inputs = spec.layers[0].inputs;
  ASSERT_EQ(rows.size(), inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(rows[i], 2 * 4500) << inputs[i].name;  // two layers
    EXPECT_EQ(cols[i], inputs[i].features) << inputs[i].name;
  }
  EXPECT_EQ(inputs[spec.layers[0].linears[6].input].features, 96) << "what down_proj reads";
}

// What the last linear of a layer rounds is all that differs: the output moves by W (R(x) - x),
// with R worked out here in double. One step of R is 1/127.5 of a token's largest; an input on the
// edge of two steps may fall to the other.
TEST(Decoder, InputsAreRoundedByTheRuleOfTheirLinear) {
  const std::string model = LWQ_SOURCE_DIR "/tests/golden/decoder/tiny";
  auto device = MakeDevice({.device = "cpu", .num_threads = 2}).value();
  auto checkpoint = Checkpoint::Open(model).value();
  auto weights = MakeCheckpointWeights(checkpoint.get());
  auto decoder = Decoder::Create(ReadDecoderSpec(model).value(), weights.get(), device.get(),
                                 ComputeType::kF32)
                     .value();
  const LayerSpec& layer = decoder->spec().layers[0];
  const size_t down = *layer.FindLinear(LinearRole::kDown);
  const LinearShape& shape = layer.linears[down].shape;
  Matrix w(shape.out_features, shape.in_features);
  ASSERT_OK(weights->ReadLinear(shape.module, w.view()));
  TokenBatch batch;
  batch.Add(Sequence(20, 3));
  Matrix plain(20, decoder->spec().hidden_size), rounded(20, plain.cols()), x(20, w.cols());
  LWQ_ASSERT_OK_AND_ASSIGN(LayerWeights loaded, decoder->LoadLayer(0));
  ASSERT_OK(decoder->Embed(batch.tokens, plain.view()));
  ASSERT_OK(decoder->Embed(batch.tokens, rounded.view()));
  ASSERT_OK(decoder->RunLayer(loaded, batch, plain.view()));
  loaded.rules[down] = ActivationRule::kInt8PerToken;
  ASSERT_OK(decoder->RunLayer(
      loaded, batch, rounded.view(), [&](size_t input, DeviceView<const float> seen) {
        return input == layer.linears[down].input ? device->Download(seen, x.view())
                                                  : absl::OkStatus();
      }));
  for (int64_t t = 0; t < 20; ++t) {
    double largest = 0, moved = 0;
    for (int64_t c = 0; c < x.cols(); ++c)
      largest = std::max(largest, std::abs(double{x.Row(t)[c]}));
    const double step = largest / 127.5;
    for (int64_t n = 0; n < w.rows(); ++n) {
      double expected = plain.Row(t)[n], edges = 1e-5;
      for (int64_t c = 0; c < x.cols(); ++c) {
        const double steps = x.Row(t)[c] / step, to = std::clamp(std::rint(steps), -128.0, 127.0);
        expected += double{w.Row(n)[c]} * (to * step - x.Row(t)[c]);
        if (std::abs(std::abs(steps - to) - 0.5) < 1e-4) edges += std::abs(w.Row(n)[c]) * step;
      }
      EXPECT_NEAR(rounded.Row(t)[n], expected, edges) << t << ", " << n;
      moved = std::max(moved, std::abs(expected - plain.Row(t)[n]));
    }
    EXPECT_GT(moved, 1e-4) << "the case shows nothing";
  }
}

// The model's weights with a rule for some of the linears.
class WithRule : public WeightSource {
 public:
  WithRule(const WeightSource* source, std::string ending)
      : source_(*source), ending_(std::move(ending)) {}
  absl::Status ReadLinear(absl::string_view module, MatrixView out) const override {
    return source_.ReadLinear(module, out);
  }
  absl::Status ReadDense(absl::string_view tensor, int64_t row, MatrixView out) const override {
    return source_.ReadDense(tensor, row, out);
  }
  bool HasDense(absl::string_view tensor) const override { return source_.HasDense(tensor); }
  ActivationRule RuleOf(absl::string_view module) const override {
    return absl::EndsWith(module, ending_) ? ActivationRule::kFp8PerToken : ActivationRule::kNone;
  }

 private:
  const WeightSource& source_;
  const std::string ending_;
};

TEST(Decoder, LinearsThatReadOneInputHaveOneRule) {
  const std::string model = LWQ_SOURCE_DIR "/tests/golden/decoder/tiny";
  auto device = MakeDevice({.device = "cpu", .num_threads = 1}).value();
  auto checkpoint = Checkpoint::Open(model).value();
  auto weights = MakeCheckpointWeights(checkpoint.get());
  for (const auto& [ending, fits] :
       std::vector<std::pair<std::string, bool>>{{"down_proj", true}, {"k_proj", false}}) {
    const WithRule with_rule(weights.get(), ending);
    auto decoder =
        Decoder::Create(ReadDecoderSpec(model).value(), &with_rule, device.get(), ComputeType::kF32)
            .value();
    if (fits) {
      LWQ_ASSERT_OK_AND_ASSIGN(const LayerWeights loaded, decoder->LoadLayer(0));
      EXPECT_EQ(std::count(loaded.rules.begin(), loaded.rules.end(), ActivationRule::kFp8PerToken),
                1);
    } else {
      EXPECT_THAT(decoder->LoadLayer(0),
                  testing::FailsWith("QUANT_FORMAT_UNSUPPORTED", ::testing::HasSubstr("k_proj")));
    }
  }
}

TEST(Decoder, AHeadThatRoundsItsInputsIsRefused) {
  const std::string model = LWQ_SOURCE_DIR "/tests/golden/decoder/tiny";
  auto device = MakeDevice({.device = "cpu", .num_threads = 1}).value();
  auto checkpoint = Checkpoint::Open(model).value();
  auto weights = MakeCheckpointWeights(checkpoint.get());
  for (const std::string ending : {"lm_head", "down_proj"}) {
    const WithRule with_rule(weights.get(), ending);
    LWQ_ASSERT_OK_AND_ASSIGN(DecoderSpec spec, ReadDecoderSpec(model));
    ASSERT_FALSE(spec.head.tied);
    LWQ_ASSERT_OK_AND_ASSIGN(
        auto decoder, Decoder::Create(spec, &with_rule, device.get(), ComputeType::kF32));
    LWQ_ASSERT_OK_AND_ASSIGN(auto rows, device->NewMatrix(2, spec.hidden_size));
    const absl::Status loaded = decoder->LoadHeadRows(0, rows->view());
    if (ending == "lm_head") {
      EXPECT_THAT(loaded, testing::FailsWith("QUANT_FORMAT_UNSUPPORTED", ::testing::_));
    } else {
      EXPECT_OK(loaded);
    }
  }
}

TEST(Decoder, TokensOutsideTheVocabularyAreRefused) {
  const std::string model = LWQ_SOURCE_DIR "/tests/golden/decoder/tiny";
  LWQ_ASSERT_OK_AND_ASSIGN(auto device, MakeDevice({.device = "cpu", .num_threads = 1}));
  LWQ_ASSERT_OK_AND_ASSIGN(auto checkpoint, Checkpoint::Open(model));
  auto weights = MakeCheckpointWeights(checkpoint.get());
  LWQ_ASSERT_OK_AND_ASSIGN(DecoderSpec spec, ReadDecoderSpec(model));
  LWQ_ASSERT_OK_AND_ASSIGN(auto decoder,
                           Decoder::Create(spec, weights.get(), device.get(), ComputeType::kF32));
  Matrix hidden(1, spec.hidden_size);
  for (int32_t token : {-1, 96}) {
    EXPECT_THAT(
        decoder->Embed({token}, hidden.view()),
        testing::FailsWith("TOKEN_OUT_OF_RANGE", ::testing::HasSubstr(std::to_string(token))));
  }
}

TEST(CutIntoChunks, KeepsFamiliesTogetherAndFillsChunks) {
  TokenBatch batch;
  batch.Add(Sequence(4, 1));                   // 0
  batch.Add(Sequence(4, 2));                   // 1
  const int root = batch.Add(Sequence(3, 3));  // 2
  batch.Add(Sequence(3, 4));                   // 3: between a parent and its child
  batch.Add(Sequence(5, 5), root);             // 4
  batch.Add(Sequence(2, 6));                   // 5
  LWQ_ASSERT_OK_AND_ASSIGN(const auto chunks, CutIntoChunks(batch, 9));
  ASSERT_EQ(chunks.size(), 3u);
  EXPECT_EQ(chunks[0].size, 8);
  EXPECT_EQ(chunks[1].size, 11);  // larger than asked for, but one family
  EXPECT_EQ(chunks[2].size, 2);
  EXPECT_EQ(chunks[1].segments[2].parent, 0);
  EXPECT_EQ(chunks[1].segments[2].begin, 6);
  EXPECT_EQ(chunks[1].positions[6], 3);  // continues after its parent's three tokens
  EXPECT_EQ(chunks[2].begin, 19);
}

TEST(CutIntoChunks, SegmentsThatDoNotCoverTheTokensAreRefused) {
  TokenBatch batch;
  batch.Add(Sequence(4, 1));
  batch.tokens.push_back(1);
  EXPECT_FALSE(CutIntoChunks(batch, 9).ok());
  batch.segments[0].size = 5;
  EXPECT_OK(CutIntoChunks(batch, 9));
  batch.segments[0].parent = 0;
  EXPECT_FALSE(CutIntoChunks(batch, 9).ok());
}

}  // namespace
}  // namespace lwq

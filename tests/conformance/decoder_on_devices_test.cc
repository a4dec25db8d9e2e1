// A whole decoder on every device: all its layers and the head, hidden states kept in host memory
// and in the device's. On the offset device this is also what shows that nothing between the
// operations reads device memory as the host's, or the other way round.
#include <algorithm>
#include <cmath>

#include "tests/conformance/judge.h"
#include "tests/testing/whole_logits.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/model/decoder.h"

namespace lwq::testing {
namespace {

// The plain layer; fused projections and a part of each head rotated; norms on both sides, GELU,
// soft caps, windows and two rotary embeddings.
constexpr const char* kModels[] = {LWQ_SOURCE_DIR "/tests/golden/decoder/tiny",
                                   LWQ_SOURCE_DIR "/tests/golden/families/phi3",
                                   LWQ_SOURCE_DIR "/tests/golden/families/gemma3"};

// Two sequences and one that continues the first; more than a chunk would be slow here.
TokenBatch Batch() {
  TokenBatch batch;
  std::vector<int32_t> tokens;
  for (int i = 0; i < 40; ++i) tokens.push_back(i * 37 % 64);
  const int first = batch.Add(absl::MakeConstSpan(tokens).first(23));
  batch.Add(tokens);
  batch.Add(absl::MakeConstSpan(tokens).last(9), first);
  return batch;
}

struct Result {
  std::vector<float> states, logits;
  std::vector<double> cosines;  // of the last layer
};

Result RunModel(const char* model, Device& device, ComputeType compute, bool states_on_device) {
  const auto checkpoint = Checkpoint::Open(model).value();
  const auto weights = MakeCheckpointWeights(checkpoint.get());
  const auto decoder =
      Decoder::Create(ReadDecoderSpec(model).value(), weights.get(), &device, compute).value();
  const TokenBatch batch = Batch();
  const DecoderSpec& spec = decoder->spec();
  Matrix hidden(batch.num_tokens(), spec.hidden_size);
  EXPECT_OK(decoder->Embed(batch.tokens, hidden.view()));
  const auto on_device = OnDevice(&device, hidden.view());
  HostStates host_states(&device, hidden.view());
  DeviceStates device_states(&device, on_device->view());
  StateStore& states = states_on_device ? static_cast<StateStore&>(device_states) : host_states;
  const PreparedBatch prepared = decoder->PrepareBatch(batch).value();
  Result result;
  result.cosines.resize(static_cast<size_t>(batch.num_tokens()));
  for (int layer = 0; layer < spec.num_layers(); ++layer) {
    const LayerWeights loaded = decoder->LoadLayer(layer).value();
    EXPECT_OK(decoder->RunLayer(loaded, prepared, states, nullptr, absl::MakeSpan(result.cosines)));
  }
  if (states_on_device) hidden = OnHost(device, on_device->view());
  const Matrix logits = WholeLogits(*decoder, hidden.view()).value();
  result.states.assign(hidden.data(), hidden.data() + hidden.size());
  result.logits.assign(logits.data(), logits.data() + logits.size());
  return result;
}

class DecoderOnDevices : public ::testing::TestWithParam<const TestDevice*> {};

// Sums of up to 96 products, layer after layer, in F32 or with inputs that round to BF16 one way or
// the other: measured apart by 1e-6 and 1e-2 of the largest, the bounds are four times that.
TEST_P(DecoderOnDevices, AgreesWithTheReference) {
  for (const char* model : kModels) {
    for (const ComputeType compute : {ComputeType::kF32, ComputeType::kBF16}) {
      ReferenceDevice reference;
      const Result expected = RunModel(model, reference, compute, false);
      const Result found = RunModel(model, *GetParam()->make(2), compute, false);
      double largest = 0, difference = 0;
      for (size_t i = 0; i < expected.logits.size(); ++i) {
        largest = std::max(largest, std::abs(double{expected.logits[i]}));
        difference = std::max(difference, std::abs(double{expected.logits[i]} - found.logits[i]));
      }
      EXPECT_GT(largest, 0.1);
      EXPECT_LT(difference, (compute == ComputeType::kF32 ? 4e-6 : 4e-2) * largest) << model;
    }
  }
}

TEST_P(DecoderOnDevices, StatesMayStayOnTheDevice) {
  for (const char* model : kModels) {
    const Result on_host = RunModel(model, *GetParam()->make(2), ComputeType::kF32, false);
    const Result on_device = RunModel(model, *GetParam()->make(2), ComputeType::kF32, true);
    EXPECT_EQ(on_host.states, on_device.states) << model;
    EXPECT_EQ(on_host.logits, on_device.logits) << model;
    EXPECT_EQ(on_host.cosines, on_device.cosines) << model;
  }
}

// A checkpoint that counts what is read of it.
class CountedWeights : public WeightSource {
 public:
  explicit CountedWeights(const Checkpoint* checkpoint)
      : base_(MakeCheckpointWeights(checkpoint)) {}
  absl::Status ReadLinear(absl::string_view module, MatrixView out) const override {
    return base_->ReadLinear(module, out);
  }
  absl::Status ReadDense(absl::string_view tensor, int64_t first_row,
                         MatrixView out) const override {
    return base_->ReadDense(tensor, first_row, out);
  }
  bool HasDense(absl::string_view tensor) const override { return base_->HasDense(tensor); }
  absl::Status LoadLinear(absl::string_view module, Device* device,
                          DeviceView<float> out) const override {
    ++loads;
    return base_->LoadLinear(module, device, out);
  }
  mutable int loads = 0;

 private:
  const std::unique_ptr<WeightSource> base_;
};

// With room for all of it, for a part and for nothing: the same states, and what stays is read
// once.
TEST_P(DecoderOnDevices, WhatFitsIsLoadedOnceAndChangesNothing) {
  const auto checkpoint = Checkpoint::Open(kModels[0]).value();
  const DecoderSpec spec = ReadDecoderSpec(kModels[0]).value();
  int linears = 0;
  for (const LayerSpec& layer : spec.layers) linears += static_cast<int>(layer.linears.size());
  const TokenBatch batch = Batch();
  std::vector<Matrix> results;
  std::vector<int> loads;
  for (const int64_t spare : {int64_t{0}, int64_t{50'000}, int64_t{1} << 30}) {
    const auto device = GetParam()->make(2);
    const CountedWeights weights(checkpoint.get());
    const auto decoder = Decoder::Create(spec, &weights, device.get(), ComputeType::kF32).value();
    decoder->set_spare_bytes(spare / 2, spare / 2);
    for (int pass = 0; pass < 2; ++pass) {
      results.emplace_back(batch.num_tokens(), spec.hidden_size);
      ASSERT_OK(RunAllLayers(*decoder, batch, results.back().view()));
    }
    loads.push_back(weights.loads);
  }
  EXPECT_EQ(loads[0], 2 * linears);
  EXPECT_GT(loads[1], linears);
  EXPECT_LT(loads[1], 2 * linears);
  EXPECT_EQ(loads[2], linears);
  for (const Matrix& result : results) {
    EXPECT_TRUE(std::equal(result.data(), result.data() + result.size(), results[0].data()));
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, DecoderOnDevices, ::testing::ValuesIn(AllDevices()), DeviceName);

}  // namespace
}  // namespace lwq::testing

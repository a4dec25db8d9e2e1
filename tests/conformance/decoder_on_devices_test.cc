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

INSTANTIATE_TEST_SUITE_P(Devices, DecoderOnDevices, ::testing::ValuesIn(AllDevices()), DeviceName);

}  // namespace
}  // namespace lwq::testing

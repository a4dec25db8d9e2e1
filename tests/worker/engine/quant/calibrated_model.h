// A small model with what calibration leaves of it, and one layer of it by a method.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "tests/testing/collected_evidence.h"
#include "tests/testing/whole_logits.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/model/decoder.h"
#include "worker/engine/quant/layer_quantizer.h"

namespace lwq::testing {

// A model, and what calibration on some tokens leaves of each layer.
struct CalibratedModel {
  std::unique_ptr<Device> device;
  DecoderSpec spec;
  std::unique_ptr<Checkpoint> checkpoint;
  ModelInventory inventory;
  std::unique_ptr<WeightSource> weights;
  std::vector<std::unique_ptr<CollectedEvidence>> evidence;  // by layer
};

inline TokenBatch SomeTokens(const DecoderSpec& spec, int count) {
  TokenBatch batch;
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>((i * 37 + i / 7 * 11) % spec.vocab_size));
  }
  batch.Add(tokens);
  return batch;
}

inline absl::StatusOr<CalibratedModel> Calibrate(const std::string& directory) {
  CalibratedModel model;
  LWQ_ASSIGN_OR_RETURN(model.device, MakeDevice({.device = "cpu", .num_threads = 2}));
  LWQ_ASSIGN_OR_RETURN(model.spec, ReadDecoderSpec(directory));
  LWQ_ASSIGN_OR_RETURN(model.checkpoint, Checkpoint::Open(directory));
  LWQ_ASSIGN_OR_RETURN(model.inventory, TakeInventory(model.spec, *model.checkpoint));
  model.weights = MakeCheckpointWeights(model.checkpoint.get());
  Device* device = model.device.get();
  LWQ_ASSIGN_OR_RETURN(auto decoder,
                       Decoder::Create(model.spec, model.weights.get(), device, ComputeType::kF32));
  const TokenBatch batch = SomeTokens(model.spec, 200);
  Matrix hidden(batch.num_tokens(), model.spec.hidden_size);
  LWQ_RETURN_IF_ERROR(decoder->Embed(batch.tokens, hidden.view()));
  for (int layer = 0; layer < model.spec.num_layers(); ++layer) {
    LWQ_ASSIGN_OR_RETURN(Collection collection,
                         Collection::Find({"channel-statistics", "input-rows", "second-moments"}));
    LWQ_RETURN_IF_ERROR(collection.Begin(
        {device, ComputeType::kF32, model.spec.layers[static_cast<size_t>(layer)].inputs}));
    LWQ_ASSIGN_OR_RETURN(const LayerWeights weights, decoder->LoadLayer(layer));
    auto evidence = std::make_unique<CollectedEvidence>(device);
    evidence->tokens = batch.num_tokens();
    const LinearInputObserver watch = {
        [&](size_t input, DeviceView<const float> x) { return collection.ObserveInput(input, x); },
        [&](size_t input) { return collection.FinishInput(input, *evidence); }};
    LWQ_RETURN_IF_ERROR(decoder->RunLayer(weights, batch, hidden.view(), watch));
    LWQ_RETURN_IF_ERROR(collection.Finish(*evidence));
    model.evidence.push_back(std::move(evidence));
  }
  return model;
}

// One layer by `method`, its units in `format` where `wanted` says so.
inline absl::StatusOr<LayerResult> Quantize(const CalibratedModel& model, const char* method,
                                            int layer, const WeightFormat* format,
                                            const OptionTexts& options = {},
                                            const std::string& only = "",
                                            const WeightSource* weights = nullptr,
                                            int64_t tile_weights = LayerRequest().tile_weights) {
  LWQ_ASSIGN_OR_RETURN(const QuantizerDef* def, FindQuantizer(method));
  LayerRequest request;
  request.device = model.device.get();
  request.layer = &model.spec.layers[static_cast<size_t>(layer)];
  request.norm_offset = model.spec.norm_offset;
  request.model = &model.inventory;
  request.weights = weights != nullptr ? weights : model.weights.get();
  request.tile_weights = tile_weights;
  request.evidence = model.evidence[static_cast<size_t>(layer)].get();
  LWQ_ASSIGN_OR_RETURN(request.options, OptionValues::Make(method, def->options, options));
  request.progress = [](double, const std::string&) { return absl::OkStatus(); };
  for (const AllocationUnit& unit : model.inventory.units) {
    if (unit.place != Place::Layer(layer)) continue;
    if (!only.empty() && !absl::StrContains(unit.name, only)) continue;
    request.units.push_back({unit, {}});
    const bool fits =
        std::all_of(unit.linears.begin(), unit.linears.end(), [&](const auto& linear) {
          return format->Accepts(linear.out_features, linear.in_features).ok();
        });
    if (fits) request.units.back().formats.push_back(format);
  }
  return QuantizeLayer(*def, request);
}

inline absl::StatusOr<Matrix> Logits(const CalibratedModel& model, const WeightSource& weights) {
  LWQ_ASSIGN_OR_RETURN(
      auto decoder, Decoder::Create(model.spec, &weights, model.device.get(), ComputeType::kF32));
  const TokenBatch batch = SomeTokens(model.spec, 60);
  Matrix hidden(batch.num_tokens(), model.spec.hidden_size);
  LWQ_RETURN_IF_ERROR(RunAllLayers(*decoder, batch, hidden.view()));
  return testing::WholeLogits(*decoder, hidden.view());
}

inline double LargestDifference(const Matrix& a, const Matrix& b) {
  double worst = 0;
  for (int64_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(double{a.data()[i]} - b.data()[i]));
  }
  return worst;
}

}  // namespace lwq::testing

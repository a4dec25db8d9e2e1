#include "worker/engine/artifact/gguf_model_keys.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

absl::Status UnsupportedModel(absl::string_view what) {
  return Failure(reasons::kGgufUnsupported, absl::StrCat("a GGUF file of this model: ", what));
}

const LinearSpec* Find(const LayerSpec& layer, std::optional<size_t> index) {
  return index.has_value() ? &layer.linears[*index] : nullptr;
}

// F32 numbers of files that are equal but for the rounding of how they were computed.
bool Same(double a, double b) { return std::abs(a - b) <= 1e-6 * std::abs(b); }

class KeyWriter {
 public:
  KeyWriter(const DecoderSpec& spec, GgufModel* model)
      : spec_(spec), model_(*model), family_(*model->family) {}

  absl::Status Write() {
    LWQ_RETURN_IF_ERROR(CheckGraph());
    SetSize("context_length", ContextLength());
    SetSize("embedding_length", spec_.hidden_size);
    SetSize("block_count", spec_.num_layers());
    SetSize("feed_forward_length", spec_.intermediate_size * (family_.first_qwen ? 2 : 1));
    SetSize("attention.head_count", spec_.num_heads);
    SetNumber("attention.layer_norm_rms_epsilon", spec_.norm_epsilon);
    SetSize("attention.head_count_kv", spec_.num_kv_heads);
    if (!HeadDimFollows() || family_.always_head_dim) {
      SetSize("attention.key_length", spec_.head_dim);
      SetSize("attention.value_length", spec_.head_dim);
    }
    if (family_.vocab_size) SetSize("vocab_size", spec_.vocab_size);
    if (family_.experts) WriteExperts();
    if (family_.gemma) {
      SetSize("attention.sliding_window", SlidingWindow());
      if (spec_.logit_softcap != 0) SetNumber("final_logit_softcapping", spec_.logit_softcap);
    }
    return WriteRope();
  }

 private:
  void Set(absl::string_view key, GgufValue value) {
    model_.metadata.Set(absl::StrCat(family_.architecture, ".", key), std::move(value));
  }
  void SetSize(absl::string_view key, int64_t value) { Set(key, static_cast<uint32_t>(value)); }
  void SetNumber(absl::string_view key, double value) { Set(key, static_cast<float>(value)); }

  absl::Status LlamaCppHas(absl::string_view has, absl::string_view here) const {
    return UnsupportedModel(
        absl::StrCat("llama.cpp's ", family_.architecture, " has ", has, ", the model ", here));
  }

  bool HeadDimFollows() const {
    return int64_t{spec_.head_dim} * spec_.num_heads == spec_.hidden_size;
  }
  // Of the layers that have one; 0 where none has.
  int64_t SlidingWindow() const {
    int64_t window = 0;
    for (const LayerSpec& layer : spec_.layers) {
      window = std::max(window, layer.attention.sliding_window);
    }
    return window;
  }
  // Only Gemma's graph has windows. Within the window of a layer it makes no difference: the others
  // have as much context.
  int64_t ContextLength() const {
    const int64_t window = family_.gemma ? 0 : SlidingWindow();
    return window == 0 ? spec_.max_positions : std::min(spec_.max_positions, window);
  }

  absl::Status CheckGraph() const;
  absl::Status CheckBiases() const;
  absl::Status CheckGemma() const;
  absl::Status CheckExperts() const;
  void WriteExperts();
  absl::StatusOr<RopeSpec> SharedRope() const;
  absl::Status WriteRope();
  absl::Status WriteScaling(const RopeSpec& rope);
  absl::Status WriteYarn(const RopeSpec& rope);
  void AddLlama3(const RopeSpec& rope);
  void AddLongRope(const RopeSpec& rope);
  absl::Status WriteTwoRopes();

  const DecoderSpec& spec_;
  GgufModel& model_;
  const GgufFamilyDef& family_;
};

absl::Status KeyWriter::CheckGraph() const {
  const Activation wanted = family_.gemma ? Activation::kGeluTanh : Activation::kSilu;
  if (spec_.activation != wanted) {
    return LlamaCppHas(family_.gemma ? "the activation gelu_pytorch_tanh" : "the activation silu",
                       "another");
  }
  if (family_.head_dim_follows && !HeadDimFollows()) {
    return LlamaCppHas("heads of hidden_size / num_attention_heads values",
                       absl::StrCat("a head_dim of ", spec_.head_dim));
  }
  if (spec_.attention_softcap != 0) {
    return LlamaCppHas("no attn_logit_softcapping", absl::StrCat(spec_.attention_softcap));
  }
  LWQ_RETURN_IF_ERROR(CheckBiases());
  LWQ_RETURN_IF_ERROR(CheckExperts());
  return family_.gemma ? CheckGemma() : absl::OkStatus();
}

absl::Status KeyWriter::CheckBiases() const {
  using enum LinearRole;
  if (family_.biases == GgufBiases::kAll) return absl::OkStatus();
  for (const LayerSpec& layer : spec_.layers) {
    for (const LinearSpec& linear : layer.linears) {
      const LinearRole role = linear.shape.role;
      const bool known =
          family_.biases == GgufBiases::kQueryKeyValue &&
          (role == kQuery || role == kKey || role == kValue || role == kQueryKeyValue);
      if (linear.bias && !known) {
        return LlamaCppHas(absl::StrCat("no bias of ", linear.shape.name), "has one");
      }
    }
  }
  return absl::OkStatus();
}

// llama.cpp derives the scale of attention, and which layers see everything.
absl::Status KeyWriter::CheckGemma() const {
  const int64_t derived =
      spec_.num_layers() == 62 ? spec_.hidden_size / spec_.num_heads : spec_.head_dim;
  const double scalar = 1 / (spec_.attention_scale * spec_.attention_scale);
  if (!Same(scalar, static_cast<double>(derived))) {
    return LlamaCppHas(absl::StrCat("a query_pre_attn_scalar of ", derived),
                       absl::StrCat("one of ", scalar));
  }
  for (size_t i = 0; i < spec_.layers.size(); ++i) {
    const bool sliding = i % 6 != 5;
    if ((spec_.layers[i].attention.sliding_window > 0) == sliding) continue;
    return LlamaCppHas(absl::StrCat(sliding ? "a window" : "no window", " in layer ", i),
                       sliding ? "none" : "one");
  }
  return absl::OkStatus();
}

absl::Status KeyWriter::CheckExperts() const {
  if (!family_.experts) return absl::OkStatus();
  for (size_t i = 0; i < spec_.layers.size(); ++i) {
    const std::optional<ExpertsSpec>& experts = spec_.layers[i].experts;
    if (!experts.has_value()) {
      return LlamaCppHas("experts in every layer", absl::StrCat("none in layer ", i));
    }
    if (experts->normalized != family_.shares_normalized) {
      return LlamaCppHas(
          absl::StrCat("a norm_topk_prob of ", family_.shares_normalized ? "true" : "false"),
          "the other");
    }
  }
  return absl::OkStatus();
}

void KeyWriter::WriteExperts() {
  const LayerSpec& layer = spec_.layers.front();
  SetSize("expert_count", layer.experts->num_experts);
  SetSize("expert_used_count", layer.experts->per_token);
  if (!family_.expert_sizes) return;
  if (const LinearSpec* gate = Find(layer, layer.FindExpert(0, LinearRole::kGate))) {
    SetSize("expert_feed_forward_length", gate->shape.out_features);
  }
  if (const LinearSpec* gate = Find(layer, layer.FindLinear(LinearRole::kGate))) {
    SetSize("expert_shared_feed_forward_length", gate->shape.out_features);
  }
}

absl::StatusOr<RopeSpec> KeyWriter::SharedRope() const {
  const RopeSpec& first = spec_.layers.front().attention.rope;
  for (const LayerSpec& layer : spec_.layers) {
    if (layer.attention.rope == first) continue;
    return LlamaCppHas("one rotary embedding", "several");
  }
  return first;
}

absl::Status KeyWriter::WriteRope() {
  if (family_.rope == GgufRope::kTwo) return WriteTwoRopes();
  LWQ_ASSIGN_OR_RETURN(const RopeSpec rope, SharedRope());
  SetNumber("rope.freq_base", rope.theta);
  const int rotated = rope.rotated == 0 ? spec_.head_dim : rope.rotated;
  if (family_.rope_dimension) {
    SetSize("rope.dimension_count", rotated);
  } else if (rotated != spec_.head_dim) {
    return LlamaCppHas("no partial_rotary_factor",
                       absl::StrCat(rotated, " rotated of ", spec_.head_dim));
  }
  return WriteScaling(rope);
}

absl::Status KeyWriter::WriteScaling(const RopeSpec& rope) {
  const bool only_long = family_.rope == GgufRope::kLong;
  switch (rope.type) {
    case RopeType::kDefault:
      return absl::OkStatus();
    case RopeType::kLinear:
      if (only_long) break;
      Set("rope.scaling.type", std::string("linear"));
      SetNumber("rope.scaling.factor", rope.factor);
      return absl::OkStatus();
    case RopeType::kYarn:
      if (only_long) break;
      return WriteYarn(rope);
    case RopeType::kLlama3:
      if (family_.rope != GgufRope::kLlama3) break;
      AddLlama3(rope);
      return absl::OkStatus();
    case RopeType::kLongRope:
      if (!only_long) break;
      AddLongRope(rope);
      return absl::OkStatus();
    case RopeType::kDynamic:
      break;
  }
  static constexpr const char* kNames[] = {"default", "linear", "dynamic",
                                           "llama3",  "yarn",   "longrope"};
  return LlamaCppHas("no rope of this type", kNames[static_cast<int>(rope.type)]);
}

absl::Status KeyWriter::WriteYarn(const RopeSpec& rope) {
  // llama.cpp derives it from the factor, and cuts its ramp at whole pairs.
  const double derived = 1 + 0.1 * std::log(rope.factor);
  if (!Same(rope.attention_factor, derived)) {
    return LlamaCppHas(absl::StrCat("for yarn's attention_factor ", derived),
                       absl::StrCat(rope.attention_factor));
  }
  if (!rope.truncate) return LlamaCppHas("yarn truncated", "truncate false");
  Set("rope.scaling.type", std::string("yarn"));
  SetNumber("rope.scaling.factor", rope.factor);
  SetSize("rope.scaling.original_context_length", rope.original_max_positions);
  SetNumber("rope.scaling.yarn_beta_fast", rope.beta_fast);
  SetNumber("rope.scaling.yarn_beta_slow", rope.beta_slow);
  return absl::OkStatus();
}

// A divisor per frequency: long waves are stretched, short ones kept, those between in between.
void KeyWriter::AddLlama3(const RopeSpec& rope) {
  GgufRopeTensor tensor{"rope_freqs.weight", {}};
  const double original = static_cast<double>(rope.original_max_positions);
  for (int i = 0; i < spec_.head_dim; i += 2) {
    const double exponent = static_cast<double>(i) / spec_.head_dim;
    const double wavelength = 2 * M_PI * std::pow(rope.theta, exponent);
    const double between = (original / wavelength - rope.low_freq_factor) /
                           (rope.high_freq_factor - rope.low_freq_factor);
    const double divisor = between >= 1   ? 1
                           : between <= 0 ? rope.factor
                                          : 1 / ((1 - between) / rope.factor + between);
    tensor.values.push_back(static_cast<float>(divisor));
  }
  model_.rope_tensors.push_back(std::move(tensor));
}

void KeyWriter::AddLongRope(const RopeSpec& rope) {
  SetSize("rope.scaling.original_context_length", rope.original_max_positions);
  SetNumber("rope.scaling.attn_factor", rope.attention_factor);
  for (const auto& [name, factors] : {std::pair("rope_factors_long.weight", &rope.long_factor),
                                      std::pair("rope_factors_short.weight", &rope.short_factor)}) {
    model_.rope_tensors.push_back({name, {factors->begin(), factors->end()}});
  }
}

// Layers with a window have a base of their own, and no scaling.
absl::Status KeyWriter::WriteTwoRopes() {
  const RopeSpec* full = nullptr;
  const RopeSpec* sliding = nullptr;
  for (const LayerSpec& layer : spec_.layers) {
    (layer.attention.sliding_window > 0 ? sliding : full) = &layer.attention.rope;
  }
  if (sliding == nullptr) return LlamaCppHas("layers with windows", "none");
  if (full == nullptr) full = sliding;  // of fewer than six layers none sees everything
  if (sliding->type != RopeType::kDefault) {
    return LlamaCppHas("no rope scaling in layers with a window", "has it");
  }
  if (full->type != RopeType::kDefault && full->type != RopeType::kLinear) {
    return LlamaCppHas("linear rope scaling at most", "another");
  }
  SetNumber("rope.freq_base_swa", sliding->theta);
  SetNumber("rope.freq_base", full->theta);
  return WriteScaling(*full);
}

}  // namespace

absl::StatusOr<GgufModel> MakeGgufModel(const DecoderSpec& spec, absl::string_view name) {
  GgufModel model;
  LWQ_ASSIGN_OR_RETURN(model.family, FindGgufFamily(spec.architecture));
  model.num_heads = spec.num_heads;
  model.num_kv_heads = spec.num_kv_heads;
  model.metadata.Set("general.architecture", std::string(model.family->architecture));
  model.metadata.Set("general.type", std::string("model"));
  if (!name.empty()) model.metadata.Set("general.name", std::string(name));
  model.metadata.Set("general.quantization_version", uint32_t{2});
  LWQ_RETURN_IF_ERROR(KeyWriter(spec, &model).Write());
  return model;
}

}  // namespace lwq

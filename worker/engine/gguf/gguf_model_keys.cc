#include "worker/engine/gguf/gguf_model_keys.h"

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace lwq {
namespace {

using Json = nlohmann::json;

// In every family.
constexpr GgufConfigKey kModelKeys[] = {
    {"context_length", "max_position_embeddings"},
    {"embedding_length", "hidden_size"},
    {"block_count", "num_hidden_layers"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", GgufConfigKey::Kind::kF32}};

absl::Status Invalid(absl::string_view field, absl::string_view accepted) {
  return InvalidFailure("CONFIG_INVALID",
                        absl::StrCat("config.json: ", field, " is to be ", accepted));
}
absl::Status Unsupported(absl::string_view what) {
  return Failure(absl::StatusCode::kUnimplemented, "GGUF_UNSUPPORTED",
                 absl::StrCat("a GGUF file of this model: ", what));
}

// Null when the member is missing or null.
const Json* Member(const Json& object, absl::string_view field) {
  const auto found = object.find(std::string(field));
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

absl::StatusOr<double> Number(const Json& object, absl::string_view field) {
  const Json* value = Member(object, field);
  if (value == nullptr || !value->is_number() || !std::isfinite(value->get<double>())) {
    return Invalid(field, "a number");
  }
  return value->get<double>();
}

absl::StatusOr<int64_t> Size(const Json& object, absl::string_view field) {
  const Json* value = Member(object, field);
  if (value == nullptr || !value->is_number_integer() || *value < 0 ||
      *value > std::numeric_limits<int32_t>::max()) {
    return Invalid(field, "a whole number from 0 to 2^31 - 1");
  }
  return value->get<int64_t>();
}
absl::StatusOr<int64_t> SizeOr(const Json& object, absl::string_view field, int64_t fallback) {
  if (Member(object, field) == nullptr) return fallback;
  return Size(object, field);
}

class KeyReader {
 public:
  KeyReader(const Json& config, GgufModel* model) : config_(config), model_(*model) {}

  absl::Status Read();

 private:
  void Set(absl::string_view key, GgufValue value) {
    model_.metadata.Set(absl::StrCat(model_.family->architecture, ".", key), std::move(value));
  }
  void SetSize(absl::string_view key, int64_t value) { Set(key, static_cast<uint32_t>(value)); }
  void SetNumber(absl::string_view key, double value) { Set(key, static_cast<float>(value)); }

  absl::Status CheckExpectations() const;
  absl::Status CheckGemmaAttention() const;
  absl::Status ReadKeys(absl::Span<const GgufConfigKey> keys);
  absl::Status ReadHeads();
  absl::Status ReadRope();
  absl::Status ReadScaling(const Json& rope);
  absl::Status ReadLlama3(const Json& rope);
  absl::Status ReadLongRope(const Json& rope);
  absl::Status ReadFactors(const Json& rope, const char* field, const char* name);

  const Json& config_;
  GgufModel& model_;
  int64_t head_dim_ = 0;
  int64_t rotated_ = 0;  // rows of a head that rope turns
  double theta_ = 10000;
};

absl::Status KeyReader::CheckExpectations() const {
  for (const GgufExpectation& expected : model_.family->expectations) {
    const auto found = config_.find(std::string(expected.field));
    if (found == config_.end() || *found == Json::parse(expected.value)) continue;
    if (found->is_null()) continue;
    return Unsupported(absl::StrCat("llama.cpp's ", model_.family->architecture, " has ",
                                    expected.field, " ", expected.value, ", config.json says ",
                                    found->dump().substr(0, 64)));
  }
  return absl::OkStatus();
}

// llama.cpp derives the scale of attention, and which layers see everything.
absl::Status KeyReader::CheckGemmaAttention() const {
  if (const Json* scalar = Member(config_, "query_pre_attn_scalar")) {
    LWQ_ASSIGN_OR_RETURN(const int64_t hidden, Size(config_, "hidden_size"));
    LWQ_ASSIGN_OR_RETURN(const int64_t layers, Size(config_, "num_hidden_layers"));
    const int64_t derived = layers == 62 ? hidden / model_.num_heads : head_dim_;
    if (*scalar != derived) {
      return Unsupported(absl::StrCat("llama.cpp scales attention by ", derived,
                                      ", query_pre_attn_scalar is ", scalar->dump()));
    }
  }
  const Json* types = Member(config_, "layer_types");
  if (types == nullptr || !types->is_array()) return absl::OkStatus();
  for (size_t i = 0; i < types->size(); ++i) {
    const char* derived = i % 6 == 5 ? "full_attention" : "sliding_attention";
    if ((*types)[i] != derived) {
      return Unsupported(absl::StrCat("llama.cpp's layer ", i, " has ", derived,
                                      ", layer_types says ", (*types)[i].dump().substr(0, 64)));
    }
  }
  return absl::OkStatus();
}

absl::Status KeyReader::ReadKeys(absl::Span<const GgufConfigKey> keys) {
  for (const GgufConfigKey& key : keys) {
    const bool renamed =
        Member(config_, key.field) == nullptr && Member(config_, key.other_field) != nullptr;
    const absl::string_view field = renamed ? key.other_field : key.field;
    if (!key.required && Member(config_, field) == nullptr) continue;
    if (key.kind == GgufConfigKey::Kind::kU32) {
      LWQ_ASSIGN_OR_RETURN(const int64_t value, Size(config_, field));
      SetSize(key.key, value);
    } else {
      LWQ_ASSIGN_OR_RETURN(const double value, Number(config_, field));
      SetNumber(key.key, value);
    }
  }
  return absl::OkStatus();
}

absl::Status KeyReader::ReadHeads() {
  LWQ_ASSIGN_OR_RETURN(model_.num_heads, Size(config_, "num_attention_heads"));
  LWQ_ASSIGN_OR_RETURN(model_.num_kv_heads,
                       SizeOr(config_, "num_key_value_heads", model_.num_heads));
  LWQ_ASSIGN_OR_RETURN(const int64_t hidden, Size(config_, "hidden_size"));
  if (model_.num_heads < 1 || model_.num_kv_heads < 1) {
    return Invalid("num_attention_heads", "positive, as num_key_value_heads");
  }
  LWQ_ASSIGN_OR_RETURN(head_dim_, SizeOr(config_, "head_dim", hidden / model_.num_heads));
  if (head_dim_ < 2 || head_dim_ % 2 != 0) return Invalid("head_dim", "even and positive");
  SetSize("attention.head_count_kv", model_.num_kv_heads);
  const bool follows = head_dim_ * model_.num_heads == hidden;
  if (!follows && model_.family->head_dim_follows) {
    return Unsupported("a head_dim that is not hidden_size / num_attention_heads");
  }
  if (!follows || model_.family->always_head_dim) {
    SetSize("attention.key_length", head_dim_);
    SetSize("attention.value_length", head_dim_);
  }
  return absl::OkStatus();
}

// transformers 4 has rope_theta beside rope_scaling; transformers 5 has all in rope_parameters, in
// Gemma 3 for each kind of layer.
absl::Status KeyReader::ReadRope() {
  const Json none = Json::object();
  const Json* parameters = Member(config_, "rope_parameters");
  const Json* scaling = Member(config_, "rope_scaling");
  const Json* rope = parameters != nullptr ? parameters : scaling != nullptr ? scaling : &none;
  if (!rope->is_object()) return Invalid("rope_parameters", "an object");
  if (const Json* local = Member(*rope, "sliding_attention")) {
    if (!local->is_object()) return Invalid("rope_parameters.sliding_attention", "an object");
    LWQ_ASSIGN_OR_RETURN(const double theta, Number(*local, "rope_theta"));
    SetNumber("rope.freq_base_swa", theta);
  } else if (Member(config_, "rope_local_base_freq") != nullptr) {
    LWQ_ASSIGN_OR_RETURN(const double theta, Number(config_, "rope_local_base_freq"));
    SetNumber("rope.freq_base_swa", theta);
  }
  if (const Json* full = Member(*rope, "full_attention")) {
    if (!full->is_object()) return Invalid("rope_parameters.full_attention", "an object");
    rope = full;
  }
  for (const Json* holder : {&config_, rope}) {
    if (Member(*holder, "rope_theta") == nullptr) continue;
    LWQ_ASSIGN_OR_RETURN(theta_, Number(*holder, "rope_theta"));
  }
  if (theta_ <= 0) return Invalid("rope_theta", "positive");
  SetNumber("rope.freq_base", theta_);
  double partial = 1;
  for (const Json* holder : {&config_, rope}) {
    if (Member(*holder, "partial_rotary_factor") == nullptr) continue;
    LWQ_ASSIGN_OR_RETURN(partial, Number(*holder, "partial_rotary_factor"));
  }
  if (partial <= 0 || partial > 1) return Invalid("partial_rotary_factor", "above 0, at most 1");
  if (partial < 1 && !model_.family->rope_short_and_long) {
    return Unsupported("a partial_rotary_factor");
  }
  rotated_ = static_cast<int64_t>(partial * static_cast<double>(head_dim_)) / 2 * 2;
  if (model_.family->rope_dimension) SetSize("rope.dimension_count", rotated_);
  return ReadScaling(*rope);
}

absl::Status KeyReader::ReadScaling(const Json& rope) {
  const Json* type = Member(rope, "rope_type");
  if (type == nullptr) type = Member(rope, "type");
  if (type == nullptr || *type == "default") return absl::OkStatus();
  if (*type == "llama3") return ReadLlama3(rope);
  if (model_.family->rope_short_and_long && (*type == "longrope" || *type == "su")) {
    return ReadLongRope(rope);
  }
  if (*type != "linear" && *type != "yarn") {
    return Unsupported(absl::StrCat("rope of type ", type->dump().substr(0, 64),
                                    "; default, linear, yarn and llama3 are known, and in phi3 "
                                    "longrope"));
  }
  LWQ_ASSIGN_OR_RETURN(const double factor, Number(rope, "factor"));
  Set("rope.scaling.type", type->get<std::string>());
  SetNumber("rope.scaling.factor", factor);
  if (*type == "linear") return absl::OkStatus();
  LWQ_ASSIGN_OR_RETURN(
      const int64_t original,
      Size(Member(rope, "original_max_position_embeddings") ? rope : config_,
           Member(rope, "original_max_position_embeddings") ? "original_max_position_embeddings"
                                                            : "max_position_embeddings"));
  SetSize("rope.scaling.original_context_length", original);
  for (const char* field : {"attention_factor", "mscale", "mscale_all_dim", "truncate"}) {
    if (Member(rope, field) != nullptr) {
      return Unsupported(absl::StrCat("yarn with a ", field));
    }
  }
  for (const auto& [field, key] : {std::pair("beta_fast", "rope.scaling.yarn_beta_fast"),
                                   std::pair("beta_slow", "rope.scaling.yarn_beta_slow")}) {
    if (Member(rope, field) == nullptr) continue;
    LWQ_ASSIGN_OR_RETURN(const double value, Number(rope, field));
    SetNumber(key, value);
  }
  return absl::OkStatus();
}

// A divisor per frequency: long waves are stretched, short ones kept, those between in between.
absl::Status KeyReader::ReadLlama3(const Json& rope) {
  LWQ_ASSIGN_OR_RETURN(const double factor, Number(rope, "factor"));
  LWQ_ASSIGN_OR_RETURN(const double low, Number(rope, "low_freq_factor"));
  LWQ_ASSIGN_OR_RETURN(const double high, Number(rope, "high_freq_factor"));
  LWQ_ASSIGN_OR_RETURN(const double original, Number(rope, "original_max_position_embeddings"));
  if (!(low > 0 && high > low && original > 0 && factor > 0)) {
    return Invalid("rope_scaling", "positive numbers with low_freq_factor below high_freq_factor");
  }
  GgufRopeTensor tensor{"rope_freqs.weight", {}};
  for (int64_t i = 0; i < head_dim_; i += 2) {
    const double exponent = static_cast<double>(i) / static_cast<double>(head_dim_);
    const double wavelength = 2 * M_PI * std::pow(theta_, exponent);
    const double between = (original / wavelength - low) / (high - low);
    const double divisor = between >= 1   ? 1
                           : between <= 0 ? factor
                                          : 1 / ((1 - between) / factor + between);
    tensor.values.push_back(static_cast<float>(divisor));
  }
  model_.rope_tensors.push_back(std::move(tensor));
  return absl::OkStatus();
}

absl::Status KeyReader::ReadFactors(const Json& rope, const char* field, const char* name) {
  GgufRopeTensor tensor{name, {}};
  const Json* factors = Member(rope, field);
  const size_t expected = static_cast<size_t>(rotated_ / 2);
  if (factors == nullptr || !factors->is_array() || factors->size() != expected) {
    return Invalid(field, absl::StrCat("a list of ", expected, " numbers"));
  }
  for (const Json& factor : *factors) {
    if (!factor.is_number()) return Invalid(field, "a list of numbers");
    tensor.values.push_back(factor.get<float>());
  }
  model_.rope_tensors.push_back(std::move(tensor));
  return absl::OkStatus();
}

absl::Status KeyReader::ReadLongRope(const Json& rope) {
  LWQ_ASSIGN_OR_RETURN(const double context, Number(config_, "max_position_embeddings"));
  LWQ_ASSIGN_OR_RETURN(const double original,
                       Number(Member(config_, "original_max_position_embeddings") ? config_ : rope,
                              "original_max_position_embeddings"));
  if (original < 2) return Invalid("original_max_position_embeddings", "at least 2");
  SetSize("rope.scaling.original_context_length", static_cast<int64_t>(original));
  const double stretch = context / original;
  SetNumber("rope.scaling.attn_factor",
            stretch > 1 ? std::sqrt(1 + std::log(stretch) / std::log(original)) : 1.0);
  LWQ_RETURN_IF_ERROR(ReadFactors(rope, "long_factor", "rope_factors_long.weight"));
  return ReadFactors(rope, "short_factor", "rope_factors_short.weight");
}

absl::Status KeyReader::Read() {
  LWQ_RETURN_IF_ERROR(CheckExpectations());
  LWQ_RETURN_IF_ERROR(ReadKeys(kModelKeys));
  LWQ_RETURN_IF_ERROR(ReadHeads());
  if (model_.family->norms_plus_one) LWQ_RETURN_IF_ERROR(CheckGemmaAttention());
  LWQ_RETURN_IF_ERROR(ReadKeys(model_.family->keys));
  return ReadRope();
}

}  // namespace

absl::StatusOr<GgufModel> ReadGgufModel(absl::string_view config_json, absl::string_view name) {
  const Json config = Json::parse(config_json, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) return Invalid("the file", "a JSON object");
  const Json* classes = Member(config, "architectures");
  if (classes == nullptr || !classes->is_array() || classes->empty() ||
      !(*classes)[0].is_string()) {
    return Invalid("architectures", "a list of names");
  }
  GgufModel model;
  LWQ_ASSIGN_OR_RETURN(model.family, FindGgufFamily((*classes)[0].get<std::string>()));
  model.metadata.Set("general.architecture", std::string(model.family->architecture));
  model.metadata.Set("general.type", std::string("model"));
  if (!name.empty()) model.metadata.Set("general.name", std::string(name));
  model.metadata.Set("general.quantization_version", uint32_t{2});
  LWQ_RETURN_IF_ERROR(KeyReader(config, &model).Read());
  return model;
}

}  // namespace lwq

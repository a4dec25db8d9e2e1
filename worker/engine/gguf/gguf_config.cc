#include "worker/engine/gguf/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/engine/gguf/gguf_keys.h"
#include "worker/engine/gguf/gguf_rope.h"

namespace lwq {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMost = int64_t{1} << 31;
constexpr double kMostTheta = 1e12, kMostFactor = 1e6;
constexpr int kGemmaPattern = 6;  // every sixth layer has no window
constexpr int kLayersOfGemma27B = 62;

absl::Status Unsupported(absl::string_view what) {
  return Failure(reasons::kGgufUnsupported, absl::StrCat("a GGUF file as the source: ", what,
                                                         "; give the model's safetensors files"));
}

// How transformers calls the kind of configuration.
std::string ModelType(const GgufFamilyDef& family) {
  return family.gemma ? absl::StrCat(family.name, "_text") : std::string(family.name);
}

class ConfigWriter {
 public:
  ConfigWriter(const GgufFile& file, const GgufFamilyDef& family)
      : file_(file),
        header_(file.header()),
        family_(family),
        keys_(header_.metadata, family.architecture) {}

  absl::StatusOr<std::string> Write() {
    config_["architectures"] = Json::array({family_.model_classes.front()});
    config_["model_type"] = ModelType(family_);
    config_["torch_dtype"] = TorchName(GgufKeptAs(header_));
    LWQ_RETURN_IF_ERROR(WriteSizes());
    LWQ_RETURN_IF_ERROR(WriteHeads());
    if (family_.biases == GgufBiases::kAll) {
      config_["attention_bias"] = HasTensor("blk.0.attn_q.bias");
      config_["mlp_bias"] = HasTensor("blk.0.ffn_gate.bias");
    }
    if (family_.experts) LWQ_RETURN_IF_ERROR(WriteExperts());
    if (family_.gemma) LWQ_RETURN_IF_ERROR(WriteGemma());
    if (family_.rope == GgufRope::kLong) LWQ_RETURN_IF_ERROR(WriteWindow());
    LWQ_RETURN_IF_ERROR(WriteRope());
    WriteTokens();
    if (family_.first_qwen) LWQ_RETURN_IF_ERROR(RenameForQwen());
    // Written into every phi3 file, with or without a scaling that reads it.
    (void)keys_.Has("rope.scaling.original_context_length");
    // 0 in files of dense models.
    LWQ_RETURN_IF_ERROR(keys_.Whole("expert_count", 0, kMostGgufExperts, 0).status());
    LWQ_ASSIGN_OR_RETURN(const bool causal, keys_.Bool("attention.causal", true));
    if (!causal) return Unsupported("it says that attention is not causal");
    LWQ_RETURN_IF_ERROR(keys_.RefuseOthers());
    return config_.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  }

 private:
  static const char* TorchName(DType dtype) {
    return dtype == DType::kF16 ? "float16" : dtype == DType::kBF16 ? "bfloat16" : "float32";
  }
  bool HasTensor(absl::string_view name) const { return file_.Find(name) >= 0; }
  // A dimension of a tensor, from the innermost.
  absl::StatusOr<int64_t> Dimension(absl::string_view tensor, size_t from_end) const {
    const int index = file_.Find(tensor);
    if (index >= 0) {
      const std::vector<int64_t>& shape = header_.tensors[static_cast<size_t>(index)].shape;
      if (shape.size() > from_end) return shape[shape.size() - 1 - from_end];
    }
    return Failure(reasons::kTensorMissing,
                   absl::StrCat("the GGUF file has no tensor ", tensor, " of ", from_end + 1,
                                " or more dimensions"));
  }

  absl::Status WriteSizes();
  absl::Status WriteHeads();
  absl::Status WriteExperts();
  absl::Status WriteGemma();
  absl::Status WriteWindow();
  absl::Status WriteRope();
  absl::Status WriteScaling(Json& scaling);
  absl::Status WriteLongRope(Json& scaling);
  absl::Status WriteLlama3(Json& scaling);
  void WriteTokens();
  absl::Status RenameForQwen();

  const GgufFile& file_;
  const GgufHeader& header_;
  const GgufFamilyDef& family_;
  GgufKeys keys_;
  Json config_ = Json::object();
  int64_t heads_ = 0, head_dim_ = 0;
};

absl::Status ConfigWriter::WriteSizes() {
  const struct {
    const char* field;
    const char* key;
  } sizes[] = {{"hidden_size", "embedding_length"},
               {"num_hidden_layers", "block_count"},
               {"intermediate_size", "feed_forward_length"},
               {"max_position_embeddings", "context_length"}};
  for (const auto& size : sizes) {
    LWQ_ASSIGN_OR_RETURN(config_[size.field], keys_.Whole(size.key, 1, kMost));
  }
  LWQ_ASSIGN_OR_RETURN(config_["rms_norm_eps"],
                       keys_.Number("attention.layer_norm_rms_epsilon", 0, 1));
  LWQ_ASSIGN_OR_RETURN(config_["vocab_size"], Dimension("token_embd.weight", 1));
  config_["tie_word_embeddings"] = !HasTensor("output.weight");
  config_[family_.gemma ? "hidden_activation" : "hidden_act"] =
      family_.gemma ? "gelu_pytorch_tanh" : "silu";
  return absl::OkStatus();
}

absl::Status ConfigWriter::WriteHeads() {
  LWQ_ASSIGN_OR_RETURN(heads_, keys_.Whole("attention.head_count", 1, kMost));
  LWQ_ASSIGN_OR_RETURN(const int64_t kv, keys_.Whole("attention.head_count_kv", 1, heads_, heads_));
  const int64_t hidden = config_["hidden_size"].get<int64_t>();
  LWQ_ASSIGN_OR_RETURN(head_dim_, keys_.Whole("attention.key_length", 1, kMost, hidden / heads_));
  LWQ_ASSIGN_OR_RETURN(const int64_t values,
                       keys_.Whole("attention.value_length", 1, kMost, head_dim_));
  if (values != head_dim_) return Unsupported("heads of keys and of values differ in size");
  config_["num_attention_heads"] = heads_;
  config_["num_key_value_heads"] = kv;
  if (!family_.head_dim_follows) {
    config_["head_dim"] = head_dim_;
  } else if (head_dim_ * heads_ != hidden) {
    return Unsupported(absl::StrCat("heads of ", head_dim_, " values are not hidden / heads in ",
                                    family_.architecture));
  }
  return absl::OkStatus();
}

absl::Status ConfigWriter::WriteExperts() {
  LWQ_ASSIGN_OR_RETURN(const int64_t count, keys_.Whole("expert_count", 2, kMostGgufExperts));
  LWQ_ASSIGN_OR_RETURN(config_["num_experts_per_tok"], keys_.Whole("expert_used_count", 1, count));
  config_[family_.expert_sizes ? "num_experts" : "num_local_experts"] = count;
  // Softmax, which is all that the families here have.
  LWQ_RETURN_IF_ERROR(keys_.Whole("expert_gating_func", 1, 1, 1).status());
  LWQ_RETURN_IF_ERROR(keys_.Bool("expert_weights_norm", family_.shares_normalized).status());
  if (!family_.expert_sizes) return absl::OkStatus();
  config_["norm_topk_prob"] = family_.shares_normalized;
  config_["decoder_sparse_step"] = 1;
  // The keys may be missing; the shapes are not.
  (void)keys_.Has("expert_feed_forward_length");
  (void)keys_.Has("expert_shared_feed_forward_length");
  (void)keys_.Has("expert_shared_count");
  LWQ_ASSIGN_OR_RETURN(config_["moe_intermediate_size"],
                       Dimension("blk.0.ffn_gate_exps.weight", 1));
  if (HasTensor("blk.0.ffn_gate_shexp.weight")) {
    LWQ_ASSIGN_OR_RETURN(config_["shared_expert_intermediate_size"],
                         Dimension("blk.0.ffn_gate_shexp.weight", 1));
  }
  return absl::OkStatus();
}

// llama.cpp derives what is not a key; so does this.
absl::Status ConfigWriter::WriteGemma() {
  const int64_t layers = config_["num_hidden_layers"].get<int64_t>();
  config_["query_pre_attn_scalar"] =
      layers == kLayersOfGemma27B ? config_["hidden_size"].get<int64_t>() / heads_ : head_dim_;
  LWQ_ASSIGN_OR_RETURN(config_["sliding_window"],
                       keys_.Whole("attention.sliding_window", 1, kMost));
  config_["sliding_window_pattern"] = kGemmaPattern;
  if (keys_.Has("final_logit_softcapping")) {
    LWQ_ASSIGN_OR_RETURN(config_["final_logit_softcapping"],
                         keys_.Number("final_logit_softcapping", 1e-3, 1e6));
  }
  LWQ_ASSIGN_OR_RETURN(config_["rope_local_base_freq"],
                       keys_.Number("rope.freq_base_swa", 1, kMostTheta, 10000));
  config_["tie_word_embeddings"] = !HasTensor("output.weight");
  return absl::OkStatus();
}

// Phi-3's; 0 where there is none.
absl::Status ConfigWriter::WriteWindow() {
  LWQ_ASSIGN_OR_RETURN(const int64_t window, keys_.Whole("attention.sliding_window", 0, kMost, 0));
  if (window > 0) config_["sliding_window"] = window;
  return absl::OkStatus();
}

absl::Status ConfigWriter::WriteRope() {
  LWQ_ASSIGN_OR_RETURN(config_["rope_theta"], keys_.Number("rope.freq_base", 1, kMostTheta, 10000));
  LWQ_ASSIGN_OR_RETURN(const int64_t rotated,
                       keys_.Whole("rope.dimension_count", 2, head_dim_, head_dim_));
  if (rotated != head_dim_) {
    if (family_.rope != GgufRope::kLong) {
      return Unsupported(absl::StrCat("only ", rotated, " of ", head_dim_,
                                      " values of a head are rotated, in ", family_.architecture));
    }
    config_["partial_rotary_factor"] =
        static_cast<double>(rotated) / static_cast<double>(head_dim_);
  }
  Json scaling = Json::object();
  LWQ_RETURN_IF_ERROR(WriteScaling(scaling));
  if (HasTensor("rope_freqs.weight")) LWQ_RETURN_IF_ERROR(WriteLlama3(scaling));
  if (HasTensor("rope_factors_long.weight") || HasTensor("rope_factors_short.weight")) {
    LWQ_RETURN_IF_ERROR(WriteLongRope(scaling));
  }
  if (!scaling.empty()) config_["rope_scaling"] = std::move(scaling);
  return absl::OkStatus();
}

absl::Status ConfigWriter::WriteScaling(Json& scaling) {
  LWQ_ASSIGN_OR_RETURN(const double old_linear,
                       keys_.Number("rope.scale_linear", 0, kMostFactor, 0));
  LWQ_ASSIGN_OR_RETURN(const std::string type,
                       keys_.Text("rope.scaling.type", old_linear > 0 ? "linear" : "none"));
  if (type == "none") return absl::OkStatus();
  if (type != "linear" && type != "yarn") {
    return Unsupported(absl::StrCat("rope scaling other than linear and yarn"));
  }
  scaling["rope_type"] = type;
  LWQ_ASSIGN_OR_RETURN(scaling["factor"], keys_.Number("rope.scaling.factor", 1e-3, kMostFactor,
                                                       old_linear > 0 ? old_linear : 1));
  if (type == "linear") return absl::OkStatus();
  LWQ_ASSIGN_OR_RETURN(scaling["original_max_position_embeddings"],
                       keys_.Whole("rope.scaling.original_context_length", 1, kMost,
                                   config_["max_position_embeddings"].get<int64_t>()));
  LWQ_ASSIGN_OR_RETURN(scaling["beta_fast"],
                       keys_.Number("rope.scaling.yarn_beta_fast", 1e-3, kMostFactor, 32));
  LWQ_ASSIGN_OR_RETURN(scaling["beta_slow"],
                       keys_.Number("rope.scaling.yarn_beta_slow", 1e-3, kMostFactor, 1));
  return absl::OkStatus();
}

absl::Status ConfigWriter::WriteLlama3(Json& scaling) {
  if (family_.rope != GgufRope::kLlama3 || !scaling.empty()) {
    return Unsupported(
        absl::StrCat("rope_freqs.weight beside another scaling, or in ", family_.architecture));
  }
  LWQ_ASSIGN_OR_RETURN(const std::vector<float> divisors,
                       ReadGgufVector(file_, "rope_freqs.weight"));
  if (std::all_of(divisors.begin(), divisors.end(), [](float d) { return d == 1; })) {
    return absl::OkStatus();
  }
  const std::optional<Llama3Rope> rope =
      Llama3RopeOf(divisors, config_["rope_theta"].get<double>(), head_dim_);
  if (!rope.has_value()) {
    return Unsupported("the divisors in rope_freqs.weight are not those of Llama 3's rope scaling");
  }
  scaling["rope_type"] = "llama3";
  scaling["factor"] = rope->factor;
  scaling["low_freq_factor"] = rope->low_freq_factor;
  scaling["high_freq_factor"] = rope->high_freq_factor;
  scaling["original_max_position_embeddings"] = rope->original_max_positions;
  return absl::OkStatus();
}

absl::Status ConfigWriter::WriteLongRope(Json& scaling) {
  if (family_.rope != GgufRope::kLong) {
    return Unsupported(absl::StrCat("longrope in ", family_.architecture));
  }
  scaling["rope_type"] = "longrope";
  LWQ_ASSIGN_OR_RETURN(scaling["long_factor"], ReadGgufVector(file_, "rope_factors_long.weight"));
  LWQ_ASSIGN_OR_RETURN(scaling["short_factor"], ReadGgufVector(file_, "rope_factors_short.weight"));
  LWQ_ASSIGN_OR_RETURN(const double attention,
                       keys_.Number("rope.scaling.attn_factor", 1e-3, kMostFactor, 1));
  scaling["attention_factor"] = attention;
  LWQ_ASSIGN_OR_RETURN(config_["original_max_position_embeddings"],
                       keys_.Whole("rope.scaling.original_context_length", 1, kMost,
                                   config_["max_position_embeddings"].get<int64_t>()));
  return absl::OkStatus();
}

void ConfigWriter::WriteTokens() {
  for (const auto& [field, key] : {std::pair("bos_token_id", "tokenizer.ggml.bos_token_id"),
                                   std::pair("eos_token_id", "tokenizer.ggml.eos_token_id"),
                                   std::pair("pad_token_id", "tokenizer.ggml.padding_token_id")}) {
    const uint32_t* id = header_.metadata.Get<uint32_t>(key);
    if (id != nullptr && int64_t{*id} < config_["vocab_size"].get<int64_t>()) config_[field] = *id;
  }
}

// The first Qwen's config.json has names of its own. What it does past its training no key says,
// and llama.cpp does not do it.
absl::Status ConfigWriter::RenameForQwen() {
  if (config_.contains("rope_scaling")) {
    return Unsupported(absl::StrCat("rope scaling in ", family_.architecture));
  }
  for (const auto& [old_name, name] : {std::pair("rms_norm_eps", "layer_norm_epsilon"),
                                       std::pair("rope_theta", "rotary_emb_base")}) {
    config_[name] = config_[old_name];
    config_.erase(old_name);
  }
  config_["kv_channels"] = head_dim_;
  config_["seq_length"] = config_["max_position_embeddings"];
  config_["use_dynamic_ntk"] = config_["use_logn_attn"] = false;
  config_["no_bias"] = true;
  config_.erase("hidden_act");
  return absl::OkStatus();
}

bool IsFloats(GgufType type) {
  return type == GgufType::kF32 || type == GgufType::kF16 || type == GgufType::kBF16;
}

DType FloatsOf(GgufType type) {
  return type == GgufType::kF16    ? DType::kF16
         : type == GgufType::kBF16 ? DType::kBF16
                                   : DType::kF32;
}

// The types of linears and embeddings. Routers are F32 in every file.
absl::btree_set<GgufType> TypesOfMatrices(const GgufHeader& header) {
  absl::btree_set<GgufType> types;
  for (const GgufTensorSpec& tensor : header.tensors) {
    if (tensor.shape.size() < 2 || absl::StrContains(tensor.name, "ffn_gate_inp")) continue;
    types.insert(tensor.type);
  }
  return types;
}

}  // namespace

absl::StatusOr<const GgufFamilyDef*> GgufFamilyOf(const GgufMetadata& metadata) {
  const std::string* architecture = metadata.Get<std::string>("general.architecture");
  if (architecture == nullptr) {
    return Failure(reasons::kGgufMetadata, "the GGUF file has no key general.architecture");
  }
  GgufKeys keys(metadata, *architecture);
  LWQ_ASSIGN_OR_RETURN(const int64_t experts, keys.Whole("expert_count", 0, kMostGgufExperts, 0));
  return FindGgufFamily(*architecture, experts > 0);
}

DType GgufReadAs(const GgufHeader& header) {
  const auto types = TypesOfMatrices(header);
  return types.size() == 1 ? FloatsOf(*types.begin()) : DType::kF32;
}

DType GgufKeptAs(const GgufHeader& header) {
  const auto types = TypesOfMatrices(header);
  if (std::all_of(types.begin(), types.end(), IsFloats)) return GgufReadAs(header);
  const bool f16 = types.contains(GgufType::kF16), bf16 = types.contains(GgufType::kBF16);
  if (types.contains(GgufType::kF32) || (f16 && bf16)) return DType::kF32;
  return f16 ? DType::kF16 : DType::kBF16;
}

absl::StatusOr<std::string> GgufConfigJson(const GgufFile& file) {
  LWQ_ASSIGN_OR_RETURN(const GgufFamilyDef* family, GgufFamilyOf(file.header().metadata));
  return ConfigWriter(file, *family).Write();
}

}  // namespace lwq

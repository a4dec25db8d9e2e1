#include "worker/engine/gguf/gguf_family.h"

#include <algorithm>

#include "absl/container/btree_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/reasons.h"

namespace lwq {
namespace {

constexpr GgufModuleName kModelModules[] = {
    {"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}};

// In every family, unless its own list says otherwise.
constexpr GgufModuleName kLayerModules[] = {
    {"input_layernorm", "attn_norm"},    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},      {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"}, {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"}};

constexpr GgufModuleName kHeadNorms[] = {{"self_attn.q_norm", "attn_q_norm"},
                                         {"self_attn.k_norm", "attn_k_norm"}};
constexpr GgufModuleName kGemma3Modules[] = {{"self_attn.q_norm", "attn_q_norm"},
                                             {"self_attn.k_norm", "attn_k_norm"},
                                             {"post_attention_layernorm", "post_attention_norm"},
                                             {"pre_feedforward_layernorm", "ffn_norm"},
                                             {"post_feedforward_layernorm", "post_ffw_norm"}};
constexpr GgufModuleName kPhi3Modules[] = {{"self_attn.qkv_proj", "attn_qkv"},
                                           {"mlp.gate_up_proj", "ffn_up"}};
constexpr GgufModuleName kQwenModelModules[] = {
    {"transformer.wte", "token_embd"}, {"transformer.ln_f", "output_norm"}, {"lm_head", "output"}};
constexpr GgufModuleName kQwenModules[] = {
    {"ln_1", "attn_norm"},     {"attn.c_attn", "attn_qkv"}, {"attn.c_proj", "attn_output"},
    {"ln_2", "ffn_norm"},      {"mlp.w1", "ffn_up"},        {"mlp.w2", "ffn_gate"},
    {"mlp.c_proj", "ffn_down"}};
constexpr GgufModuleName kMixtralModules[] = {{"block_sparse_moe.gate", "ffn_gate_inp"},
                                              {"block_sparse_moe.experts.*.w1", "ffn_gate_exps"},
                                              {"block_sparse_moe.experts.*.w2", "ffn_down_exps"},
                                              {"block_sparse_moe.experts.*.w3", "ffn_up_exps"}};
constexpr GgufModuleName kQwen3MoeModules[] = {{"self_attn.q_norm", "attn_q_norm"},
                                               {"self_attn.k_norm", "attn_k_norm"},
                                               {"mlp.gate", "ffn_gate_inp"},
                                               {"mlp.experts.*.gate_proj", "ffn_gate_exps"},
                                               {"mlp.experts.*.up_proj", "ffn_up_exps"},
                                               {"mlp.experts.*.down_proj", "ffn_down_exps"}};

constexpr GgufModuleName kQwen2MoeModules[] = {{"mlp.gate", "ffn_gate_inp"},
                                               {"mlp.experts.*.gate_proj", "ffn_gate_exps"},
                                               {"mlp.experts.*.up_proj", "ffn_up_exps"},
                                               {"mlp.experts.*.down_proj", "ffn_down_exps"},
                                               {"mlp.shared_expert_gate", "ffn_gate_inp_shexp"},
                                               {"mlp.shared_expert.gate_proj", "ffn_gate_shexp"},
                                               {"mlp.shared_expert.up_proj", "ffn_up_shexp"},
                                               {"mlp.shared_expert.down_proj", "ffn_down_shexp"}};

constexpr absl::string_view kLlamaClasses[] = {"LlamaForCausalLM", "MistralForCausalLM"};
constexpr absl::string_view kMixtralClasses[] = {"MixtralForCausalLM"};
constexpr absl::string_view kQwenClasses[] = {"QWenLMHeadModel"};
constexpr absl::string_view kQwen2Classes[] = {"Qwen2ForCausalLM"};
constexpr absl::string_view kQwen3Classes[] = {"Qwen3ForCausalLM"};
constexpr absl::string_view kQwen2MoeClasses[] = {"Qwen2MoeForCausalLM"};
constexpr absl::string_view kQwen3MoeClasses[] = {"Qwen3MoeForCausalLM"};
constexpr absl::string_view kGemma3Classes[] = {"Gemma3ForCausalLM"};
constexpr absl::string_view kPhi3Classes[] = {"Phi3ForCausalLM"};

constexpr GgufFamilyDef kFamilies[] = {
    {.name = "llama",
     .architecture = "llama",
     .model_classes = kLlamaClasses,
     .biases = GgufBiases::kAll,
     .rope = GgufRope::kLlama3,
     .interleaved_rope = true,
     .rope_dimension = true,
     .vocab_size = true},
    {.name = "mixtral",
     .architecture = "llama",
     .model_classes = kMixtralClasses,
     .modules = kMixtralModules,
     .rope = GgufRope::kLlama3,
     .interleaved_rope = true,
     .rope_dimension = true,
     .vocab_size = true,
     .experts = true},
    {.name = "qwen",
     .architecture = "qwen",
     .model_classes = kQwenClasses,
     .modules = kQwenModules,
     .model_modules = kQwenModelModules,
     .layers = "transformer.h.",
     .biases = GgufBiases::kQueryKeyValue,
     .head_dim_follows = true,
     .rope_dimension = true,
     .first_qwen = true},
    {.name = "qwen2",
     .architecture = "qwen2",
     .model_classes = kQwen2Classes,
     .biases = GgufBiases::kQueryKeyValue,
     .head_dim_follows = true},
    {.name = "qwen2_moe",
     .architecture = "qwen2moe",
     .model_classes = kQwen2MoeClasses,
     .modules = kQwen2MoeModules,
     .biases = GgufBiases::kQueryKeyValue,
     .head_dim_follows = true,
     .experts = true,
     .expert_sizes = true,
     .shares_normalized = false},
    {.name = "qwen3",
     .architecture = "qwen3",
     .model_classes = kQwen3Classes,
     .modules = kHeadNorms,
     .always_head_dim = true},
    {.name = "qwen3_moe",
     .architecture = "qwen3moe",
     .model_classes = kQwen3MoeClasses,
     .modules = kQwen3MoeModules,
     .always_head_dim = true,
     .experts = true,
     .expert_sizes = true},
    {.name = "gemma3",
     .architecture = "gemma3",
     .model_classes = kGemma3Classes,
     .modules = kGemma3Modules,
     .rope = GgufRope::kTwo,
     .gemma = true,
     .always_head_dim = true},
    {.name = "phi3",
     .architecture = "phi3",
     .model_classes = kPhi3Classes,
     .modules = kPhi3Modules,
     .rope = GgufRope::kLong,
     .head_dim_follows = true,
     .rope_dimension = true},
};

const GgufModuleName* Lookup(absl::Span<const GgufModuleName> names, absl::string_view module) {
  const auto found = std::find_if(names.begin(), names.end(), [module](const GgufModuleName& name) {
    return name.module == module;
  });
  return found == names.end() ? nullptr : &*found;
}

const GgufModuleName* LookupName(absl::Span<const GgufModuleName> names, absl::string_view name) {
  const auto found = std::find_if(names.begin(), names.end(),
                                  [name](const GgufModuleName& one) { return one.name == name; });
  return found == names.end() ? nullptr : &*found;
}

absl::Span<const GgufModuleName> ModelModules(const GgufFamilyDef& family) {
  return family.model_modules.empty() ? kModelModules : family.model_modules;
}

// Cuts "3.rest" into 3 and "rest"; false when it does not begin with a plain number and a dot.
bool ConsumeNumber(absl::string_view* text, int64_t* number) {
  const size_t dot = text->find('.');
  if (dot == absl::string_view::npos || dot == 0 || dot > 6) return false;
  const absl::string_view digits = text->substr(0, dot);
  const bool plain =
      std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!plain || (digits.size() > 1 && digits[0] == '0')) return false;
  if (!absl::SimpleAtoi(digits, number)) return false;
  text->remove_prefix(dot + 1);
  return true;
}

// "mlp.experts.7.up_proj" to "mlp.experts.*.up_proj" and 7.
std::string WithoutExpert(absl::string_view module, int64_t* expert) {
  constexpr absl::string_view kExperts = "experts.";
  const size_t at = module.find(kExperts);
  if (at == absl::string_view::npos) return std::string(module);
  absl::string_view rest = module.substr(at + kExperts.size());
  if (!ConsumeNumber(&rest, expert)) return std::string(module);
  return absl::StrCat(module.substr(0, at + kExperts.size()), "*.", rest);
}

}  // namespace

absl::Span<const GgufFamilyDef> GgufFamilies() { return kFamilies; }

absl::StatusOr<const GgufFamilyDef*> FindGgufFamily(absl::string_view model_class) {
  std::vector<absl::string_view> known;
  for (const GgufFamilyDef& family : kFamilies) {
    for (const absl::string_view one : family.model_classes) {
      if (one == model_class) return &family;
      known.push_back(one);
    }
  }
  return Failure(absl::StatusCode::kUnimplemented, reasons::kArchUnsupported.name,
                 absl::StrCat("a GGUF file of architecture ", model_class, ": lwq writes them of ",
                              absl::StrJoin(known, ", ")));
}

absl::StatusOr<const GgufFamilyDef*> FindGgufFamily(absl::string_view architecture, bool experts) {
  absl::btree_set<absl::string_view> known;
  for (const GgufFamilyDef& family : kFamilies) {
    if (family.architecture == architecture && family.experts == experts) return &family;
    known.insert(family.architecture);
  }
  return Failure(
      absl::StatusCode::kUnimplemented, reasons::kArchUnsupported.name,
      absl::StrCat("a GGUF file of architecture \"", absl::CHexEscape(architecture.substr(0, 64)),
                   "\"", experts ? " with experts" : "", ": lwq reads them of ",
                   absl::StrJoin(known, ", ")));
}

absl::StatusOr<std::string> NameOutsideGguf(const GgufFamilyDef& family, absl::string_view tensor) {
  const absl::Status unknown = Failure(
      reasons::kTensorUnknown,
      absl::StrCat("tensor ", tensor, " is no part of a GGUF file of family ", family.name));
  const size_t dot = tensor.rfind('.');
  if (dot == absl::string_view::npos) return unknown;
  absl::string_view name = tensor.substr(0, dot);
  const absl::string_view kind = tensor.substr(dot + 1);
  if (kind != "weight" && kind != "bias") return unknown;
  if (const GgufModuleName* found = LookupName(ModelModules(family), name)) {
    return absl::StrCat(found->module, ".", kind);
  }
  int64_t layer = 0;
  if (!absl::ConsumePrefix(&name, "blk.") || !ConsumeNumber(&name, &layer)) return unknown;
  const GgufModuleName* found = LookupName(family.modules, name);
  if (found == nullptr) found = LookupName(kLayerModules, name);
  if (found == nullptr) return unknown;
  return absl::StrCat(family.layers, layer, ".", found->module, ".", kind);
}

absl::StatusOr<GgufTensorName> NameInGguf(const GgufFamilyDef& family, absl::string_view tensor) {
  const absl::Status unknown = Failure(
      reasons::kTensorUnknown,
      absl::StrCat("tensor ", tensor, " has no name in a GGUF file of family ", family.name));
  const size_t dot = tensor.rfind('.');
  if (dot == absl::string_view::npos) return unknown;
  absl::string_view module = tensor.substr(0, dot);
  const absl::string_view kind = tensor.substr(dot + 1);
  if (kind != "weight" && kind != "bias") return unknown;

  GgufTensorName result;
  const GgufModuleName* found = Lookup(ModelModules(family), module);
  std::string prefix;
  if (found == nullptr && absl::ConsumePrefix(&module, family.layers)) {
    int64_t layer = 0;
    if (!ConsumeNumber(&module, &layer)) return unknown;
    prefix = absl::StrCat("blk.", layer, ".");
    const std::string plain = WithoutExpert(module, &result.expert);
    found = Lookup(family.modules, plain);
    if (found == nullptr) found = Lookup(kLayerModules, plain);
  }
  if (found == nullptr) return unknown;
  result.name = absl::StrCat(prefix, found->name, ".", kind);
  result.permuted_query = family.interleaved_rope && found->name == "attn_q";
  result.permuted_key = family.interleaved_rope && found->name == "attn_k";
  result.plus_one = family.gemma && absl::EndsWith(found->name, "_norm");
  return result;
}

}  // namespace lwq

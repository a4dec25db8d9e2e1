#include "worker/engine/gguf/gguf_family.h"

#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;

// "name", or "name expert", of a tensor; the reason where there is none. tests/peers compares every
// name with the gguf package.
std::string NameOf(const char* model_class, const char* tensor) {
  const absl::StatusOr<const GgufFamilyDef*> family = FindGgufFamily(model_class);
  if (!family.ok()) return ReasonOf(family.status());
  const absl::StatusOr<GgufTensorName> name = NameInGguf(**family, tensor);
  if (!name.ok()) return ReasonOf(name.status());
  return name->expert < 0 ? name->name : name->name + " " + std::to_string(name->expert);
}

TEST(GgufFamilyTest, NamesFollowTheFamily) {
  EXPECT_EQ(NameOf("LlamaForCausalLM", "model.embed_tokens.weight"), "token_embd.weight");
  EXPECT_EQ(NameOf("LlamaForCausalLM", "lm_head.weight"), "output.weight");
  EXPECT_EQ(NameOf("LlamaForCausalLM", "model.norm.weight"), "output_norm.weight");
  EXPECT_EQ(NameOf("Qwen2ForCausalLM", "model.layers.0.self_attn.q_proj.bias"),
            "blk.0.attn_q.bias");
  EXPECT_EQ(NameOf("Qwen3ForCausalLM", "model.layers.35.self_attn.k_norm.weight"),
            "blk.35.attn_k_norm.weight");
  EXPECT_EQ(NameOf("LlamaForCausalLM", "model.layers.2.post_attention_layernorm.weight"),
            "blk.2.ffn_norm.weight");
  EXPECT_EQ(NameOf("Gemma3ForCausalLM", "model.layers.2.post_attention_layernorm.weight"),
            "blk.2.post_attention_norm.weight");
  EXPECT_EQ(NameOf("Gemma3ForCausalLM", "model.layers.2.pre_feedforward_layernorm.weight"),
            "blk.2.ffn_norm.weight");
  EXPECT_EQ(NameOf("Phi3ForCausalLM", "model.layers.1.mlp.gate_up_proj.weight"),
            "blk.1.ffn_up.weight");
  EXPECT_EQ(NameOf("MixtralForCausalLM", "model.layers.1.block_sparse_moe.experts.7.w2.weight"),
            "blk.1.ffn_down_exps.weight 7");
  EXPECT_EQ(NameOf("MixtralForCausalLM", "model.layers.1.block_sparse_moe.gate.weight"),
            "blk.1.ffn_gate_inp.weight");
  EXPECT_EQ(NameOf("Qwen3MoeForCausalLM", "model.layers.1.mlp.experts.127.up_proj.weight"),
            "blk.1.ffn_up_exps.weight 127");
}

TEST(GgufFamilyTest, WhatHasNoNameIsRefused) {
  for (const char* tensor :
       {"", "weight", "model.layers.weight", "model.layers.x.input_layernorm.weight",
        "model.layers.01.input_layernorm.weight", "model.layers.-1.input_layernorm.weight",
        "model.layers.99999999999999999999.input_layernorm.weight",
        "model.layers.0.self_attn.q_norm.weight", "model.layers.0.input_layernorm.scale",
        "model.layers.0.mlp.experts.0.up_proj.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq"}) {
    EXPECT_EQ(NameOf("LlamaForCausalLM", tensor), "TENSOR_UNKNOWN") << tensor;
  }
  EXPECT_THAT(FindGgufFamily("MambaForCausalLM"),
              FailsWith("ARCH_UNSUPPORTED", HasSubstr("LlamaForCausalLM, MistralForCausalLM")));
}

TEST(GgufFamilyTest, ValuesAreChangedWhereLlamaCppExpectsIt) {
  const auto name = [](const char* model_class, const char* tensor) {
    return *NameInGguf(**FindGgufFamily(model_class), tensor);
  };
  const char* query = "model.layers.0.self_attn.q_proj.weight";
  const char* key = "model.layers.0.self_attn.k_proj.bias";
  const char* value = "model.layers.0.self_attn.v_proj.weight";
  EXPECT_TRUE(name("LlamaForCausalLM", query).permuted_query);
  EXPECT_FALSE(name("LlamaForCausalLM", query).permuted_key);
  EXPECT_TRUE(name("MixtralForCausalLM", key).permuted_key);
  EXPECT_FALSE(name("LlamaForCausalLM", value).permuted_query);
  EXPECT_FALSE(name("Qwen2ForCausalLM", query).permuted_query);
  EXPECT_TRUE(name("Gemma3ForCausalLM", "model.norm.weight").plus_one);
  EXPECT_TRUE(name("Gemma3ForCausalLM", "model.layers.0.self_attn.q_norm.weight").plus_one);
  EXPECT_FALSE(name("Gemma3ForCausalLM", query).plus_one);
  EXPECT_FALSE(name("Qwen3ForCausalLM", "model.norm.weight").plus_one);
}

TEST(GgufFamilyTest, PermutedRowsMakeNeighboursOfRopesPairs) {
  std::vector<int64_t> rows;
  for (int64_t row = 0; row < 8; ++row) rows.push_back(PermutedRow(row, 8, 2));
  EXPECT_THAT(rows, ::testing::ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
  rows.clear();
  for (int64_t row = 0; row < 6; ++row) rows.push_back(PermutedRow(row, 6, 1));
  EXPECT_THAT(rows, ::testing::ElementsAre(0, 3, 1, 4, 2, 5));
}

}  // namespace
}  // namespace lwq

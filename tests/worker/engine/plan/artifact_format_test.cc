#include "worker/engine/plan/artifact_format.h"

#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/format/gguf.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> UnitNames(const ModelInventory& model) {
  std::vector<std::string> names;
  for (const AllocationUnit& unit : model.units) names.push_back(unit.name);
  return names;
}

TEST(ArtifactFormatTest, AreFoundByName) {
  LWQ_ASSERT_OK_AND_ASSIGN(const ArtifactFormatDef* gguf, FindArtifactFormat("gguf"));
  EXPECT_EQ(gguf, &ArtifactFormatDefs::gguf);
  LWQ_ASSERT_OK_AND_ASSIGN(const ArtifactFormatDef* unsaid, FindArtifactFormat(""));
  EXPECT_EQ(unsaid, &ArtifactFormatDefs::compressed_tensors);
  EXPECT_EQ(ModelInventory().artifact_format, unsaid);
  EXPECT_THAT(FindArtifactFormat("onnx"),
              FailsWith("ARTIFACT_FORMAT_UNKNOWN", HasSubstr("compressed-tensors, gguf, gptq")));
}

TEST(ArtifactFormatTest, CompressedTensorsKeepsTheModelsUnits) {
  const ModelInventory model = testing::LlamaInventory({.layers = 2});
  const ModelInventory planned = PlannedAs(ArtifactFormatDefs::compressed_tensors, model);
  EXPECT_EQ(UnitNames(planned), UnitNames(model));
  const Plan plan(model.units.size(), DenseFormat());
  EXPECT_EQ(WeightFileBytes(planned, plan, 0), LayOutArtifact(model, plan, 0).weight_bytes);
}

TEST(ArtifactFormatTest, InGgufEveryLinearAndTheEmbeddingAreUnits) {
  const ModelInventory model = testing::LlamaInventory({.layers = 1, .tied = false});
  const ModelInventory planned = PlannedAs(ArtifactFormatDefs::gguf, model);
  EXPECT_EQ(planned.artifact_format, &ArtifactFormatDefs::gguf);
  EXPECT_THAT(UnitNames(planned),
              ElementsAre("embed_tokens", "layers.0.self_attn.q_proj", "layers.0.self_attn.k_proj",
                          "layers.0.self_attn.v_proj", "layers.0.self_attn.o_proj",
                          "layers.0.mlp.gate_proj", "layers.0.mlp.up_proj",
                          "layers.0.mlp.down_proj", "lm_head"));
  EXPECT_EQ(planned.units[0].place, Place::Embedding());
  EXPECT_EQ(planned.units[0].linears[0].module, "model.embed_tokens");
  EXPECT_EQ(planned.units[0].linears[0].out_features, 4096);
  EXPECT_EQ(planned.units[1].kind, "self_attn.q_proj");
  EXPECT_EQ(planned.units[8].place, Place::Head());
  for (const DenseTensor& tensor : planned.dense) EXPECT_NE(tensor.place, Place::Embedding());
  // Nothing is lost and nothing is there twice.
  EXPECT_EQ(planned.num_quantizable_weights(), model.num_quantizable_weights() + 4096 * 256);
}

TEST(ArtifactFormatTest, AGgufFileIsTheRestAndThePaddedTensors) {
  ModelInventory model = testing::LlamaInventory({.layers = 1, .hidden = 32, .intermediate = 32});
  model.gguf_other_bytes = 1000;
  const ModelInventory planned = PlannedAs(ArtifactFormatDefs::gguf, model);
  const WeightFormat* q8 = GgufFormat::Find(DefOf(GgufType::kQ8_0));
  Plan plan(planned.units.size(), DenseFormat());
  int64_t dense = 1000;
  for (const AllocationUnit& unit : planned.units) dense += 2 * unit.num_weights();
  EXPECT_EQ(WeightFileBytes(planned, plan, 0), dense);
  // Key projection: [16, 32], 16 rows of 34 bytes are 544, whole alignments; a row less is padded.
  plan[2] = q8;
  EXPECT_EQ(WeightFileBytes(planned, plan, 0), dense - 16 * 32 * 2 + 544);
  ModelInventory odd = planned;
  odd.units[2].linears[0].out_features = 15;
  EXPECT_EQ(WeightFileBytes(odd, plan, 0), dense - 16 * 32 * 2 + 512);
}

TEST(ArtifactFormatTest, AModelThatGgufCannotSayIsRefusedWithWhy) {
  ModelInventory model = testing::LlamaInventory({.layers = 1});
  EXPECT_OK(ArtifactFormatDefs::compressed_tensors.check(model));
  EXPECT_THAT(ArtifactFormatDefs::gguf.check(model),
              FailsWith("MODEL_INVALID", HasSubstr("register it again")));
  model.gguf_refusal = "a Unigram tokenizer";
  EXPECT_THAT(ArtifactFormatDefs::gguf.check(model),
              FailsWith("GGUF_UNSUPPORTED", HasSubstr("a Unigram tokenizer")));
  model.gguf_refusal.clear();
  model.gguf_other_bytes = 1;
  EXPECT_OK(ArtifactFormatDefs::gguf.check(model));
}

TEST(ArtifactFormatTest, UnitsAreFoundInWhateverKindHasThem) {
  const ModelInventory model = testing::LlamaInventory({.layers = 2});
  LWQ_ASSERT_OK_AND_ASSIGN(const AllocationUnit fused,
                           FindUnit(model, "layers.1.self_attn.qkv_proj"));
  EXPECT_EQ(fused.linears.size(), 3u);
  LWQ_ASSERT_OK_AND_ASSIGN(const AllocationUnit one, FindUnit(model, "layers.1.self_attn.k_proj"));
  EXPECT_EQ(one.linears[0].module, "model.layers.1.self_attn.k_proj");
  LWQ_ASSERT_OK_AND_ASSIGN(const AllocationUnit table, FindUnit(model, "embed_tokens"));
  EXPECT_EQ(table.place, Place::Embedding());
  EXPECT_THAT(FindUnit(model, "layers.2.mlp.down_proj"),
              FailsWith("PLAN_MISMATCH", HasSubstr("layers.2.mlp.down_proj")));
}

// A name stands for the same linears everywhere, so that blobs are shared between the kinds.
TEST(ArtifactFormatTest, EqualNamesAreEqualLinears) {
  const ModelInventory model = testing::LlamaInventory({.layers = 1, .tied = false});
  const ModelInventory planned = PlannedAs(ArtifactFormatDefs::gguf, model);
  int shared = 0;
  for (const AllocationUnit& a : model.units) {
    for (const AllocationUnit& b : planned.units) {
      if (a.name != b.name) continue;
      ++shared;
      ASSERT_EQ(a.linears.size(), b.linears.size());
      EXPECT_EQ(a.linears[0].module, b.linears[0].module);
    }
  }
  EXPECT_EQ(shared, 3);  // o, down, lm_head
}

}  // namespace
}  // namespace lwq

#include "worker/engine/plan/artifact_layout.h"

#include "absl/strings/str_cat.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/plan/artifact_format.h"

namespace lwq {
namespace {

ModelInventory TwoLayers() {
  ModelInventory model;
  model.num_layers = 2;
  model.weight_dtype = DType::kBF16;
  for (int l = 0; l < 2; ++l) {
    const std::string module = absl::StrCat("model.layers.", l, ".");
    model.units.push_back(
        {absl::StrCat("layers.", l, ".self_attn.qkv_proj"),
         Place::Layer(l),
         {{module + "self_attn.q_proj", 128, 128}, {module + "self_attn.k_proj", 64, 128}}});
    model.units.push_back({absl::StrCat("layers.", l, ".mlp.down_proj"),
                           Place::Layer(l),
                           {{module + "mlp.down_proj", 128, 256}}});
    model.dense.push_back(
        {{module + "input_layernorm.weight", DType::kBF16, {128}}, Place::Layer(l), ""});
    model.dense.push_back({{module + "self_attn.q_proj.bias", DType::kBF16, {128}},
                           Place::Layer(l),
                           module + "self_attn.q_proj"});
  }
  model.units.push_back({"lm_head", Place::Head(), {{"lm_head", 512, 128}}});
  model.dense.push_back(
      {{"model.embed_tokens.weight", DType::kBF16, {512, 128}}, Place::Embedding(), ""});
  model.dense.push_back({{"model.norm.weight", DType::kBF16, {128}}, Place::FinalNorm(), ""});
  return model;
}

ModelInventory Of(DType dtype, const ArtifactFormatDef& kind) {
  ModelInventory model;
  model.weight_dtype = dtype;
  model.artifact_format = &kind;
  return model;
}

TEST(ArtifactLayoutTest, TensorsOfALinearHaveTheFormatsShapes) {
  const LinearShape linear{"m", 64, 96};
  const ModelInventory bf16 = Of(DType::kBF16, ArtifactFormatDefs::compressed_tensors);
  const ModelInventory f32 = Of(DType::kF32, ArtifactFormatDefs::compressed_tensors);
  const auto three = LinearTensors(bf16, linear, *GridFormat::Find(3, 32, true));
  ASSERT_EQ(three.size(), 3u);
  EXPECT_EQ(three[0].name, "m.weight_packed");
  EXPECT_EQ(three[0].dtype, DType::kI32);
  EXPECT_EQ(three[0].shape, (std::vector<int64_t>{64, 9}));
  EXPECT_EQ(three[1].dtype, DType::kBF16);
  EXPECT_EQ(three[1].shape, (std::vector<int64_t>{64, 3}));
  EXPECT_EQ(three[2].dtype, DType::kI64);
  const auto channel = LinearTensors(f32, linear, *GridFormat::Find(4, 0, false));
  ASSERT_EQ(channel.size(), 4u);
  EXPECT_EQ(channel[1].dtype, DType::kF16);
  EXPECT_EQ(channel[1].shape, (std::vector<int64_t>{64, 1}));
  EXPECT_EQ(channel[3].name, "m.weight_zero_point");
  EXPECT_EQ(channel[3].shape, (std::vector<int64_t>{8, 1}));
  const auto dense = LinearTensors(f32, linear, *DenseFormat());
  ASSERT_EQ(dense.size(), 1u);
  EXPECT_EQ(dense[0].name, "m.weight");
  EXPECT_EQ(dense[0].dtype, DType::kF32);
}

TEST(ArtifactLayoutTest, AUnitsPayloadIsCodesScalesAndShapes) {
  const AllocationUnit unit{"u", Place::Layer(0), {{"m", 128, 256}}};
  // 4 bits of codes, 16 / 128 of scales, and 16 bytes of weight_shape.
  const ModelInventory model = Of(DType::kF16, ArtifactFormatDefs::compressed_tensors);
  EXPECT_EQ(UnitPayloadBytes(model, unit, GridFormat::Find(4, 128, true)),
            128 * 256 * 33 / 64 + 16);
  EXPECT_EQ(UnitPayloadBytes(model, unit, DenseFormat()), 128 * 256 * 2);
  EXPECT_EQ(UnitPayloadBytes(model, unit, nullptr), 0);
}

// artifact-formats B.1: [K b / 32, N], [K / g, N b / 32], [K / g, N], [K], scales F16 in every model.
TEST(ArtifactLayoutTest, GptqStoresZeroPointsAndOrderBesides) {
  const ModelInventory model = Of(DType::kBF16, ArtifactFormatDefs::gptq);
  const LinearShape linear{"m", 64, 96};
  const auto three = LinearTensors(model, linear, *GridFormat::Find(3, 32, true));
  ASSERT_EQ(three.size(), 4u);
  EXPECT_EQ(three[0].name, "m.qweight");
  EXPECT_EQ(three[0].shape, (std::vector<int64_t>{9, 64}));
  EXPECT_EQ(three[1].name, "m.qzeros");
  EXPECT_EQ(three[1].shape, (std::vector<int64_t>{3, 6}));
  EXPECT_EQ(three[2].name, "m.scales");
  EXPECT_EQ(three[2].dtype, DType::kF16);
  EXPECT_EQ(three[2].shape, (std::vector<int64_t>{3, 64}));
  EXPECT_EQ(three[3].name, "m.g_idx");
  EXPECT_EQ(three[3].shape, (std::vector<int64_t>{96}));
  const auto dense = LinearTensors(model, linear, *DenseFormat());
  ASSERT_EQ(dense.size(), 1u);
  EXPECT_EQ(dense[0].dtype, DType::kBF16);
  // Codes, scales and zero points of 4 bits in groups of 128, and the order: b + (16 + b) / g.
  const AllocationUnit unit{"u", Place::Layer(0), {{"m", 128, 256}}};
  EXPECT_EQ(UnitPayloadBytes(model, unit, GridFormat::Find(4, 128, true)),
            128 * 256 / 2 + 128 * 2 * (2 * 8 + 4) / 8 + 4 * 256);
}

TEST(ArtifactLayoutTest, FilesGoFromEmbeddingThroughLayersToHead) {
  const ModelInventory model = TwoLayers();
  const Plan plan = {GridFormat::Find(4, 128, true), GridFormat::Find(2, 128, true), DenseFormat(),
                     GridFormat::Find(8, 128, true), GridFormat::Find(3, 128, true)};
  // A limit below any group puts each group into its own file, in order.
  const CheckpointLayout layout = LayOutArtifact(model, plan, 1);
  std::vector<std::string> firsts;
  size_t num_tensors = 0;
  for (const auto& file : layout.files) {
    std::string name = file.layout.tensors[0].name;
    firsts.push_back(name.substr(0, name.rfind('.')));
    num_tensors += file.layout.tensors.size();
  }
  EXPECT_THAT(firsts, ::testing::ElementsAre(
                          "model.embed_tokens", "model.layers.0.self_attn.q_proj",
                          "model.layers.0.self_attn.k_proj", "model.layers.0.mlp.down_proj",
                          "model.layers.0.input_layernorm", "model.layers.1.self_attn.q_proj",
                          "model.layers.1.self_attn.k_proj", "model.layers.1.mlp.down_proj",
                          "model.layers.1.input_layernorm", "model.norm", "lm_head"));
  // 6 dense tensors, 5 quantized linears of 3 tensors, 2 dense linears of the unit kept.
  EXPECT_EQ(num_tensors, 6u + 5 * 3 + 2);
  EXPECT_EQ(layout.files[1].layout.tensors.size(), 4u) << "the bias belongs to its linear";
}

}  // namespace
}  // namespace lwq

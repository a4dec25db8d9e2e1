// What a family says of its layers is true of what the decoder computes: along every edge a scale
// can move and nothing changes.
#include "worker/engine/model/layer_spec.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/model/decoder.h"
#include "worker/engine/model/families.h"
#include "worker/engine/model/inventory.h"

namespace lwq {
namespace {

std::string TinyModel() { return LWQ_SOURCE_DIR "/tests/golden/decoder/tiny"; }

// Powers of two, so that moving them about is exact.
float ScaleOf(int64_t channel) { return static_cast<float>(1 << (channel * 7 % 5)); }

// A model with the scales of one edge of each layer moved.
class MovedScales : public WeightSource {
 public:
  MovedScales(const WeightSource* base, const DecoderSpec& spec, size_t edge)
      : base_(base), spec_(spec), edge_(edge) {}

  absl::Status ReadLinear(absl::string_view module, MatrixView out) const override {
    LWQ_RETURN_IF_ERROR(base_->ReadLinear(module, out));
    for (const LayerSpec& layer : spec_.layers) {
      const ScaleEdge& edge = layer.edges[edge_];
      const std::optional<size_t> linear = layer.FindLinear(std::string(module));
      if (!linear.has_value()) continue;
      if (edge.source == ScaleEdge::Source::kLinear && edge.index == *linear) {
        for (int64_t r = 0; r < out.rows; ++r) {
          for (int64_t c = 0; c < out.cols; ++c) out.Row(r)[c] /= ScaleOf(r);
        }
      }
      if (std::count(edge.readers.begin(), edge.readers.end(), *linear) == 0) continue;
      for (int64_t r = 0; r < out.rows; ++r) {
        for (int64_t c = 0; c < out.cols; ++c) out.Row(r)[c] *= ScaleOf(edge.ChannelOf(c));
      }
    }
    return absl::OkStatus();
  }
  absl::Status ReadDense(absl::string_view tensor, int64_t first_row,
                         MatrixView out) const override {
    LWQ_RETURN_IF_ERROR(base_->ReadDense(tensor, first_row, out));
    for (const LayerSpec& layer : spec_.layers) {
      const ScaleEdge& edge = layer.edges[edge_];
      const bool divides = edge.source == ScaleEdge::Source::kNorm
                               ? layer.norms[edge.index].tensor == tensor
                               : layer.linears[edge.index].bias_name() == tensor;
      if (!divides) continue;
      const float offset =
          edge.source == ScaleEdge::Source::kNorm ? static_cast<float>(spec_.norm_offset) : 0.0f;
      for (int64_t c = 0; c < out.cols; ++c) {
        out.data[c] = (out.data[c] + offset) / ScaleOf(c) - offset;
      }
    }
    return absl::OkStatus();
  }
  bool HasDense(absl::string_view tensor) const override { return base_->HasDense(tensor); }

 private:
  const WeightSource* const base_;
  const DecoderSpec& spec_;
  const size_t edge_;
};

absl::StatusOr<Matrix> LastHidden(const DecoderSpec& spec, const WeightSource& weights) {
  LWQ_ASSIGN_OR_RETURN(auto device, MakeDevice({.device = "cpu", .num_threads = 1}));
  LWQ_ASSIGN_OR_RETURN(auto decoder,
                       Decoder::Create(spec, &weights, device.get(), ComputeType::kF32));
  TokenBatch batch;
  for (int i = 0; i < 3; ++i) batch.Add({1, 5 + i, 40, 7, 60 - i, 33});
  Matrix hidden(batch.num_tokens(), spec.hidden_size);
  LWQ_RETURN_IF_ERROR(RunAllLayers(*decoder, batch, hidden.view()));
  return hidden;
}

// A model's checkpoint and the number of edges that its layers have: where q, k and v are one
// linear, and gate and up another, only those that begin at a norm; with experts, whose norm the
// router reads too, one in each of them.
struct EdgeCase {
  std::string model;
  size_t num_edges;
};

// All have two query heads per key-value head, so the values' edge repeats.
TEST(LayerSpecTest, AScaleMovedAlongAnyEdgeChangesNothing) {
  const std::string families = LWQ_SOURCE_DIR "/tests/golden/families/";
  for (const EdgeCase& c :
       {EdgeCase{TinyModel(), 4}, EdgeCase{families + "llama", 4}, EdgeCase{families + "qwen2", 4},
        EdgeCase{families + "qwen3", 4}, EdgeCase{families + "phi3", 2},
        EdgeCase{families + "gemma2", 4}, EdgeCase{families + "gemma3", 4},
        EdgeCase{families + "mixtral", 2 + 5}}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec, ReadDecoderSpec(c.model));
    LWQ_ASSERT_OK_AND_ASSIGN(auto checkpoint, Checkpoint::Open(c.model));
    const auto weights = MakeCheckpointWeights(checkpoint.get());
    ASSERT_GT(spec.num_heads, spec.num_kv_heads);
    LWQ_ASSERT_OK_AND_ASSIGN(const Matrix expected, LastHidden(spec, *weights));
    EXPECT_EQ(spec.layers[0].edges.size(), c.num_edges) << c.model;
    for (size_t edge = 0; edge < spec.layers[0].edges.size(); ++edge) {
      const MovedScales moved(weights.get(), spec, edge);
      LWQ_ASSERT_OK_AND_ASSIGN(const Matrix found, LastHidden(spec, moved));
      double worst = 0;
      for (int64_t i = 0; i < found.size(); ++i) {
        worst = std::max(worst, std::abs(double{found.data()[i]} - expected.data()[i]));
      }
      // Powers of two move exactly; not so where the 1 that a norm adds is taken off again.
      EXPECT_LE(worst, spec.norm_offset == 0 ? 0 : 1e-4) << c.model << ", edge " << edge;
    }
  }
}

TEST(LayerSpecTest, ChannelsOfAnEdgeRepeatByBlocks) {
  const ScaleEdge grouped{ScaleEdge::Source::kLinear, 0, {0}, 2, 3};
  std::vector<int64_t> channels;
  for (int64_t column = 0; column < 12; ++column) channels.push_back(grouped.ChannelOf(column));
  EXPECT_THAT(channels, ::testing::ElementsAre(0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3));
}

// Calls `visit` with the layer and the inventory's shape of each linear of every family's golden
// model.
void ForEachLinear(const std::function<void(const LayerSpec&, const LinearShape&)>& visit) {
  for (const ModelFamilyDef* family : ModelFamilies()) {
    const std::string model = absl::StrCat(LWQ_SOURCE_DIR "/tests/golden/families/", family->name);
    LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec, ReadDecoderSpec(model));
    LWQ_ASSERT_OK_AND_ASSIGN(auto checkpoint, Checkpoint::Open(model));
    LWQ_ASSERT_OK_AND_ASSIGN(const ModelInventory inventory, TakeInventory(spec, *checkpoint));
    for (const AllocationUnit& unit : inventory.units) {
      const LayerSpec& layer = unit.place.in_layer()
                                   ? spec.layers[static_cast<size_t>(unit.place.layer)]
                                   : spec.head.layer;
      for (const LinearShape& shape : unit.linears) visit(layer, shape);
    }
  }
}

// What the inventory has of a linear is what the decoder goes by: its role and what it reads.
TEST(LayerSpecTest, InventoriesHaveTheRolesAndInputsOfEachFamily) {
  int num_linears = 0;
  ForEachLinear([&](const LayerSpec& layer, const LinearShape& shape) {
    const auto slot = layer.FindLinear(shape.module);
    ASSERT_TRUE(slot.has_value()) << shape.module;
    EXPECT_NE(shape.role, LinearRole::kUnknown) << shape.module;
    EXPECT_EQ(shape.role, layer.linears[*slot].shape.role);
    EXPECT_EQ(shape.input, layer.inputs[layer.linears[*slot].input].name) << shape.module;
    ++num_linears;
  });
  EXPECT_GT(num_linears, 100);
}

// By what the papers and transformers call the modules.
TEST(LayerSpecTest, RolesAreThoseOfTheModulesNames) {
  // The first that ends a module's name; w1 and w2 of the first Qwen are not Mixtral's.
  const std::pair<absl::string_view, LinearRole> roles[] = {
      {"mlp.w1", LinearRole::kUp},
      {"mlp.w2", LinearRole::kGate},
      {"mlp.c_proj", LinearRole::kDown},
      {"attn.c_proj", LinearRole::kOutput},
      {"c_attn", LinearRole::kQueryKeyValue},
      {"wte", LinearRole::kEmbedding},
      {"gate_up_proj", LinearRole::kGateUp},
      {"qkv_proj", LinearRole::kQueryKeyValue},
      {"q_proj", LinearRole::kQuery},
      {"k_proj", LinearRole::kKey},
      {"v_proj", LinearRole::kValue},
      {"o_proj", LinearRole::kOutput},
      {"gate_proj", LinearRole::kGate},
      {"up_proj", LinearRole::kUp},
      {"down_proj", LinearRole::kDown},
      {".w1", LinearRole::kGate},
      {".w3", LinearRole::kUp},
      {".w2", LinearRole::kDown},
      {"lm_head", LinearRole::kHead},
      {"embed_tokens", LinearRole::kEmbedding}};
  ForEachLinear([&](const LayerSpec&, const LinearShape& shape) {
    const auto* known = std::find_if(
        std::begin(roles), std::end(roles),
        [&shape](const auto& role) { return absl::EndsWith(shape.module, role.first); });
    ASSERT_NE(known, std::end(roles)) << shape.module;
    EXPECT_EQ(shape.role, known->second) << shape.module;
  });
}

TEST(LayerSpecTest, IndicesStayInTheLayerAndUnitsHoldTheirLinearsInOrder) {
  LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec, ReadDecoderSpec(TinyModel()));
  for (const LayerSpec& layer : spec.layers) {
    size_t unit = 0;
    for (const LinearSpec& linear : layer.linears) {
      ASSERT_LT(linear.input, layer.inputs.size());
      EXPECT_EQ(linear.shape.in_features, layer.inputs[linear.input].features);
      EXPECT_GE(linear.unit, unit) << linear.shape.module;
      unit = linear.unit;
      EXPECT_THAT(linear.shape.module, ::testing::EndsWith("." + linear.shape.name));
    }
    EXPECT_EQ(unit + 1, layer.units.size());
    for (const ScaleEdge& edge : layer.edges) {
      for (size_t reader : edge.readers) ASSERT_LT(reader, layer.linears.size());
    }
    EXPECT_EQ(layer.FindLinear(LinearRole::kDown), 6u);
    EXPECT_EQ(layer.FindLinear(layer.linears[2].shape.module), 2u);
    EXPECT_FALSE(layer.FindLinear(LinearRole::kHead).has_value());
    EXPECT_FALSE(layer.FindNorm(NormRole::kQuery).has_value());
  }
}

}  // namespace
}  // namespace lwq

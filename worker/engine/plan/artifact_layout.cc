// The sizes of docs/formats/compressed_tensors.md.
#include "worker/engine/plan/artifact_layout.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr absl::string_view kWeightShapeSuffix = ".weight_shape";

// The tensor that holds a part.
absl::string_view SuffixOf(absl::string_view part) {
  if (part == "codes") return ".weight_packed";
  if (part == "scales") return ".weight_scale";
  if (part == "zeros") return ".weight_zero_point";
  return ".weight";
}

// "model.layers.12.mlp..." -> 12; -1 when the tensor is of no layer.
int LayerOf(absl::string_view tensor) {
  constexpr absl::string_view kMarker = "layers.";
  const size_t at = tensor.find(kMarker);
  if (at == absl::string_view::npos) return -1;
  absl::string_view rest = tensor.substr(at + kMarker.size());
  int layer = -1;
  return absl::SimpleAtoi(rest.substr(0, rest.find('.')), &layer) ? layer : -1;
}

// Collects groups in the order they are to lie in the files and remembers what is placed.
class Grouper {
 public:
  explicit Grouper(const ModelInventory& model) : model_(model) {
    for (size_t i = 0; i < model.dense.size(); ++i) {
      const int layer = LayerOf(model.dense[i].name);
      if (layer >= 0) dense_of_layer_[layer].push_back(i);
    }
  }

  // Dense tensors of no layer, embeddings (in front of the layers) or others (behind).
  void AddOutside(bool embeddings) {
    for (const TensorSpec& tensor : model_.dense) {
      if (LayerOf(tensor.name) >= 0) continue;
      if (absl::StrContains(tensor.name, "embed") == embeddings) groups_.push_back({tensor});
    }
  }
  void AddUnit(const AllocationUnit& unit, const WeightFormat& format) {
    for (const LinearShape& linear : unit.linears) {
      std::vector<TensorSpec> group = LinearTensors(linear, format, model_.weight_dtype);
      const std::string bias = absl::StrCat(linear.module, ".bias");
      for (size_t i : DenseOf(unit.layer)) {
        if (model_.dense[i].name == bias) {
          group.push_back(model_.dense[i]);
          placed_.insert(i);
        }
      }
      groups_.push_back(std::move(group));
    }
  }
  void AddRestOfLayer(int layer) {
    for (size_t i : DenseOf(layer)) {
      if (placed_.insert(i).second) groups_.push_back({model_.dense[i]});
    }
  }
  // Layers beyond num_layers are stored too: nothing of a source may be lost.
  void AddRest() {
    for (size_t i = 0; i < model_.dense.size(); ++i) {
      if (LayerOf(model_.dense[i].name) >= model_.num_layers && placed_.insert(i).second) {
        groups_.push_back({model_.dense[i]});
      }
    }
  }
  std::vector<std::vector<TensorSpec>>& groups() { return groups_; }

 private:
  const std::vector<size_t>& DenseOf(int layer) { return dense_of_layer_[layer]; }

  const ModelInventory& model_;
  absl::flat_hash_map<int, std::vector<size_t>> dense_of_layer_;
  absl::flat_hash_set<size_t> placed_;
  std::vector<std::vector<TensorSpec>> groups_;
};

}  // namespace

std::vector<TensorSpec> LinearTensors(const LinearShape& linear, const WeightFormat& format,
                                      DType weight_dtype) {
  std::vector<TensorSpec> tensors;
  for (PartSpec& part : format.Parts(linear.out_features, linear.in_features, weight_dtype)) {
    tensors.push_back(
        {absl::StrCat(linear.module, SuffixOf(part.name)), part.dtype, std::move(part.shape)});
  }
  if (!format.dense()) {
    tensors.insert(tensors.begin() + 2,
                   {absl::StrCat(linear.module, kWeightShapeSuffix), DType::kI64, {2}});
  }
  return tensors;
}

int64_t UnitPayloadBytes(const AllocationUnit& unit, const WeightFormat* format,
                         DType weight_dtype) {
  if (format == nullptr) return 0;
  int64_t bytes = 0;
  for (const LinearShape& linear : unit.linears) {
    for (const TensorSpec& tensor : LinearTensors(linear, *format, weight_dtype)) {
      bytes += tensor.size_bytes();
    }
  }
  return bytes;
}

CheckpointLayout LayOutArtifact(const ModelInventory& model, const Plan& plan,
                                int64_t max_shard_bytes) {
  Grouper grouper(model);
  const auto format_of = [&](size_t i) -> const WeightFormat& { return *plan[i]; };
  grouper.AddOutside(/*embeddings=*/true);
  // Units come by layer; a layer's norms follow its linears.
  size_t unit = 0;
  for (int layer = 0; layer < model.num_layers; ++layer) {
    for (; unit < model.units.size() && model.units[unit].layer == layer; ++unit) {
      grouper.AddUnit(model.units[unit], format_of(unit));
    }
    grouper.AddRestOfLayer(layer);
  }
  grouper.AddRest();
  grouper.AddOutside(/*embeddings=*/false);
  for (; unit < model.units.size(); ++unit) grouper.AddUnit(model.units[unit], format_of(unit));
  return LayOutCheckpoint(grouper.groups(), max_shard_bytes);
}

}  // namespace lwq

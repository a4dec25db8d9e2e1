// Sizes of artifacts of safetensors: docs/formats/compressed_tensors.md, docs/formats/gptq.md.
#include "worker/engine/plan/artifact_layout.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "worker/engine/plan/artifact_format.h"
#include "worker/engine/plan/kept_layers.h"

namespace lwq {
namespace {

// Collects groups in the order they are to lie in the files and remembers what is placed.
class Grouper {
 public:
  explicit Grouper(const ModelInventory& model) : model_(model), placed_(model.dense.size()) {
    for (size_t i = 0; i < model.dense.size(); ++i) {
      const DenseTensor& tensor = model.dense[i];
      if (tensor.place.in_layer()) dense_of_layer_[tensor.place.layer].push_back(i);
      if (!tensor.bias_of.empty()) bias_of_.emplace(tensor.bias_of, i);
    }
  }

  // Each linear with its bias.
  void AddUnit(const AllocationUnit& unit, const WeightFormat& format) {
    for (const LinearShape& linear : unit.linears) {
      std::vector<TensorSpec> group = LinearTensors(model_, linear, format);
      const auto bias = bias_of_.find(linear.module);
      if (bias != bias_of_.end()) {
        group.push_back(model_.dense[bias->second]);
        placed_[bias->second] = true;
      }
      groups_.push_back(std::move(group));
    }
  }
  // Dense tensors of a layer that are not placed with a linear.
  void AddRestOfLayer(int layer) {
    for (size_t i : dense_of_layer_[layer]) AddDense(i);
  }
  // The same of a part outside the layers.
  void AddRestOf(Place place) {
    for (size_t i = 0; i < model_.dense.size(); ++i) {
      if (model_.dense[i].place == place) AddDense(i);
    }
  }
  // All that is left: nothing of a source may be lost.
  void AddRest() {
    for (size_t i = 0; i < model_.dense.size(); ++i) AddDense(i);
  }
  std::vector<std::vector<TensorSpec>>& groups() { return groups_; }

 private:
  void AddDense(size_t i) {
    if (placed_[i]) return;
    placed_[i] = true;
    groups_.push_back({model_.dense[i]});
  }

  const ModelInventory& model_;
  absl::flat_hash_map<int, std::vector<size_t>> dense_of_layer_;
  absl::flat_hash_map<std::string, size_t> bias_of_;
  std::vector<bool> placed_;  // by model_.dense
  std::vector<std::vector<TensorSpec>> groups_;
};

}  // namespace

std::vector<TensorSpec> LinearTensors(const ModelInventory& model, const LinearShape& linear,
                                      const WeightFormat& format) {
  const DType dtype = linear.own_dtype.value_or(model.weight_dtype);
  if (format.dense()) {
    return {{absl::StrCat(linear.module, ".weight"),
             dtype,
             {linear.out_features, linear.in_features}}};
  }
  return model.artifact_format->linear_tensors(linear, format, dtype);
}

int64_t UnitPayloadBytes(const ModelInventory& model, const AllocationUnit& unit,
                         const WeightFormat* format) {
  if (format == nullptr) return 0;
  int64_t bytes = 0;
  for (const LinearShape& linear : unit.linears) {
    for (const TensorSpec& tensor : LinearTensors(model, linear, *format)) {
      bytes += tensor.size_bytes();
    }
  }
  return bytes;
}

CheckpointLayout LayOutArtifact(const ModelInventory& model, const Plan& plan,
                                int64_t max_shard_bytes) {
  if (DropsLayers(model, plan)) {
    const KeptModel kept = KeepLayers(model, plan);
    return LayOutArtifact(kept.model, kept.plan, max_shard_bytes);
  }
  Grouper grouper(model);
  const auto format_of = [&](size_t i) -> const WeightFormat& { return *plan[i]; };
  grouper.AddRestOf(Place::Embedding());
  // Units come by layer; a layer's norms follow its linears.
  size_t unit = 0;
  for (int layer = 0; layer < model.num_layers; ++layer) {
    for (; unit < model.units.size() && model.units[unit].place == Place::Layer(layer); ++unit) {
      grouper.AddUnit(model.units[unit], format_of(unit));
    }
    grouper.AddRestOfLayer(layer);
  }
  grouper.AddRestOf(Place::FinalNorm());
  for (; unit < model.units.size(); ++unit) grouper.AddUnit(model.units[unit], format_of(unit));
  grouper.AddRest();
  return LayOutCheckpoint(grouper.groups(), max_shard_bytes);
}

}  // namespace lwq

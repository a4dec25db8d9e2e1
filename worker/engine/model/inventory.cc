// Holds a checkpoint against its DecoderSpec and lists what the planner may choose formats for.
#include "worker/engine/model/inventory.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/io/fp8_blocks.h"
#include "worker/engine/io/stored_rows.h"

namespace lwq {
namespace {

class InventoryTaker {
 public:
  InventoryTaker(const DecoderSpec& spec, absl::Span<const TensorSpec> tensors,
                 const std::string& where)
      : spec_(spec), where_(where) {
    for (const TensorSpec& tensor : tensors) tensors_.emplace(tensor.name, &tensor);
  }

  absl::StatusOr<ModelInventory> Take() {
    LWQ_RETURN_IF_ERROR(TakeDense(spec_.embedding.tensor, {spec_.vocab_size, spec_.hidden_size},
                                  Place::Embedding()));
    for (int layer = 0; layer < spec_.num_layers(); ++layer) {
      LWQ_RETURN_IF_ERROR(TakeLayer(spec_.layers[static_cast<size_t>(layer)], layer));
    }
    LWQ_RETURN_IF_ERROR(TakeNorm(spec_.head.norm(), Place::FinalNorm()));
    if (!spec_.head.tied) {
      AllocationUnit& unit = AddUnit(spec_.head.layer.units.front(), Place::Head());
      LWQ_RETURN_IF_ERROR(TakeLinear(spec_.head.linear(), unit));
    }
    LWQ_RETURN_IF_ERROR(RefuseLeftovers());
    std::sort(inventory_.dense.begin(), inventory_.dense.end(),
              [](const DenseTensor& a, const DenseTensor& b) { return a.name < b.name; });
    FillSizes();
    return std::move(inventory_);
  }

 private:
  // The tensor, of the shape the spec wants and of a dtype that weights may have.
  absl::StatusOr<TensorSpec> Check(const std::string& name, const std::vector<int64_t>& shape) {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
      return WithQuantizedName(
          Failure(reasons::kTensorMissing,
                  absl::StrCat(where_, ": the weight files hold no tensor \"", name, "\"")),
          name);
    }
    TensorSpec tensor = *found->second;
    if (tensor.shape != shape) {
      return Failure(
          reasons::kConfigMismatch,
          absl::StrCat("tensor ", name, " has shape [", absl::StrJoin(tensor.shape, ", "),
                       "], config.json asks for [", absl::StrJoin(shape, ", "), "]"));
    }
    if (IsFp8(tensor.dtype)) {
      LWQ_RETURN_IF_ERROR(TakeFp8Scales(tensor));
      tensor.dtype = kFp8ReadAs;
    }
    if (!IsWeightFloat(tensor.dtype)) {
      return Failure(reasons::kDtypeUnsupported,
                     absl::StrCat("tensor ", name, " is ", NameOf(tensor.dtype),
                                  ", expected F16, BF16, F32 or F8_E4M3 with scales"));
    }
    taken_.insert(name);
    return tensor;
  }

  // Where a weight is missing because codes are there in its place, that is said.
  absl::Status WithQuantizedName(const absl::Status& missing, const std::string& name) const {
    const absl::string_view module = absl::StripSuffix(name, ".weight");
    for (const absl::string_view stored : {".weight_packed", ".weight_scale", ".qweight"}) {
      const std::string codes = absl::StrCat(module, stored);
      if (tensors_.count(codes) == 0) continue;
      return Failure(reasons::kQuantMethodUnsupported,
                     absl::StrCat("the model in ", where_, " is quantized already: it has ", codes,
                                  " in place of ", name, "; give the model that it was made from"));
    }
    return missing;
  }

  absl::Status TakeFp8Scales(const TensorSpec& tensor) {
    const std::string name = Fp8ScalesName(tensor.name);
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
      return Failure(reasons::kTensorMissing,
                     absl::StrCat(where_, ": the weight files hold no tensor \"", name,
                                  "\", the scales of 8-bit floats"));
    }
    taken_.insert(name);
    return CheckFp8Scales(tensor.name, tensor.shape, found->second->dtype, found->second->shape);
  }

  absl::Status TakeDense(const std::string& name, const std::vector<int64_t>& shape, Place place,
                         const std::string& bias_of = "") {
    LWQ_ASSIGN_OR_RETURN(const TensorSpec tensor, Check(name, shape));
    inventory_.dense.push_back({{name, tensor.dtype, shape}, place, bias_of});
    return absl::OkStatus();
  }

  absl::Status TakeNorm(const NormSpec& norm, Place place) {
    return TakeDense(norm.tensor, {norm.size}, place);
  }

  AllocationUnit& AddUnit(const UnitSpec& spec, Place place) {
    AllocationUnit& unit = inventory_.units.emplace_back();
    unit.name = spec.name;
    unit.kind = spec.kind;
    unit.place = place;
    return unit;
  }

  absl::Status TakeLinear(const LinearSpec& linear, AllocationUnit& unit) {
    const LinearShape& shape = linear.shape;
    const std::string name = linear.weight_name();
    LWQ_ASSIGN_OR_RETURN(const TensorSpec tensor,
                         Check(name, {shape.out_features, shape.in_features}));
    if (!dtype_.has_value()) {
      dtype_ = tensor.dtype;
      first_linear_ = name;
    }
    if (*dtype_ != tensor.dtype) {
      return Failure(reasons::kDtypeUnsupported,
                     absl::StrCat("tensor ", name, " is ", NameOf(tensor.dtype), " but ",
                                  first_linear_, " is ", NameOf(*dtype_),
                                  ": the weights of all linears must have one dtype"));
    }
    unit.linears.push_back(shape);
    if (!linear.bias) return absl::OkStatus();
    return TakeDense(linear.bias_name(), {shape.out_features}, unit.place, shape.module);
  }

  absl::Status TakeLayer(const LayerSpec& layer, int index) {
    const Place place = Place::Layer(index);
    for (size_t u = 0; u < layer.units.size(); ++u) {
      AllocationUnit& unit = AddUnit(layer.units[u], place);
      for (const LinearSpec& linear : layer.linears) {
        if (linear.unit == u) LWQ_RETURN_IF_ERROR(TakeLinear(linear, unit));
      }
    }
    for (const NormSpec& norm : layer.norms) LWQ_RETURN_IF_ERROR(TakeNorm(norm, place));
    return layer.experts.has_value() ? TakeRouter(*layer.experts, place) : absl::OkStatus();
  }

  absl::Status TakeRouter(const ExpertsSpec& experts, Place place) {
    LWQ_RETURN_IF_ERROR(TakeDense(experts.router, {experts.num_experts, spec_.hidden_size}, place));
    if (experts.shared_gate.empty()) return absl::OkStatus();
    return TakeDense(experts.shared_gate, {1, spec_.hidden_size}, place);
  }

  // A tensor the decoder would not read means that the model is not what config.json says. Two are
  // known to be redundant: a stored copy of a tied head, and old checkpoints' rotary frequencies.
  absl::Status RefuseLeftovers() const {
    for (const auto& [name, tensor] : tensors_) {
      if (taken_.contains(name)) continue;
      if (spec_.head.tied && name == spec_.head.linear().weight_name()) continue;
      if (absl::EndsWith(name, ".rotary_emb.inv_freq")) continue;
      return Failure(
          reasons::kConfigMismatch,
          absl::StrCat("tensor ", name, " in ", where_, " is no part of a ", spec_.architecture,
                       " of ", spec_.num_layers(), " layers as config.json describes it"));
    }
    return absl::OkStatus();
  }

  void FillSizes() {
    inventory_.num_layers = spec_.num_layers();
    inventory_.weight_dtype = dtype_.value_or(DType::kF16);
    inventory_.hidden_size = spec_.hidden_size;
    inventory_.intermediate_size = spec_.intermediate_size;
    inventory_.vocab_size = spec_.vocab_size;
    inventory_.num_heads = spec_.num_heads;
    inventory_.num_kv_heads = spec_.num_kv_heads;
    inventory_.head_dim = spec_.head_dim;
    inventory_.max_positions = spec_.max_positions;
  }

  const DecoderSpec& spec_;
  const std::string& where_;
  std::map<std::string, const TensorSpec*> tensors_;
  ModelInventory inventory_;
  std::set<std::string> taken_;
  std::optional<DType> dtype_;
  std::string first_linear_;
};

}  // namespace

absl::StatusOr<ModelInventory> TakeInventory(const DecoderSpec& spec,
                                             const Checkpoint& checkpoint) {
  std::vector<TensorSpec> tensors;
  for (const std::string& name : checkpoint.tensor_names()) {
    LWQ_ASSIGN_OR_RETURN(TensorView tensor, checkpoint.Get(name));
    // 8-bit floats are known by their type, and what they are kept as is seen to with their scales.
    const DType dtype = IsFp8(tensor.dtype) ? tensor.dtype : KeptAs(checkpoint, tensor);
    tensors.push_back({name, dtype, std::move(tensor.shape)});
  }
  return TakeInventoryOf(spec, tensors, checkpoint.directory());
}

absl::StatusOr<ModelInventory> TakeInventoryOf(const DecoderSpec& spec,
                                               absl::Span<const TensorSpec> tensors,
                                               const std::string& where) {
  return InventoryTaker(spec, tensors, where).Take();
}

}  // namespace lwq

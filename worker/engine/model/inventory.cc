// Holds a checkpoint against its DecoderSpec and lists what the planner may choose formats for.
#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "worker/engine/model/decoder_spec.h"

namespace lwq {
namespace {

class InventoryTaker {
 public:
  InventoryTaker(const DecoderSpec& spec, const Checkpoint& checkpoint)
      : spec_(spec), checkpoint_(checkpoint) {}

  absl::StatusOr<ModelInventory> Take() {
    LWQ_RETURN_IF_ERROR(TakeDense(spec_.embedding_name(), {spec_.vocab_size, spec_.hidden_size}));
    for (int layer = 0; layer < spec_.num_layers; ++layer) {
      LWQ_RETURN_IF_ERROR(TakeLayer(layer));
    }
    LWQ_RETURN_IF_ERROR(TakeDense(spec_.final_norm_name(), {spec_.hidden_size}));
    if (!spec_.tied_embeddings) {
      AllocationUnit head{.name = spec_.head_module(), .layer = -1, .linears = {}};
      LWQ_RETURN_IF_ERROR(
          TakeLinear(spec_.head_module(), spec_.vocab_size, spec_.hidden_size, head));
      inventory_.units.push_back(std::move(head));
    }
    LWQ_RETURN_IF_ERROR(RefuseLeftovers());
    std::sort(inventory_.dense.begin(), inventory_.dense.end(),
              [](const TensorSpec& a, const TensorSpec& b) { return a.name < b.name; });
    FillSizes();
    return std::move(inventory_);
  }

 private:
  // The tensor, of the shape the spec wants and of a dtype that weights may have.
  absl::StatusOr<TensorView> Check(const std::string& name, const std::vector<int64_t>& shape) {
    LWQ_ASSIGN_OR_RETURN(const TensorView tensor, checkpoint_.Get(name));
    if (tensor.shape != shape) {
      return InvalidFailure(
          "CONFIG_MISMATCH",
          absl::StrCat("tensor ", name, " has shape [", absl::StrJoin(tensor.shape, ", "),
                       "], config.json asks for [", absl::StrJoin(shape, ", "), "]"));
    }
    if (!IsWeightFloat(tensor.dtype)) {
      return InvalidFailure("DTYPE_UNSUPPORTED",
                            absl::StrCat("tensor ", name, " is ", NameOf(tensor.dtype),
                                         ", expected F16, BF16 or F32"));
    }
    taken_.insert(name);
    return tensor;
  }

  absl::Status TakeDense(const std::string& name, const std::vector<int64_t>& shape) {
    LWQ_ASSIGN_OR_RETURN(const TensorView tensor, Check(name, shape));
    inventory_.dense.push_back({name, tensor.dtype, shape});
    return absl::OkStatus();
  }

  absl::Status TakeLinear(const std::string& module, int64_t out, int64_t in,
                          AllocationUnit& unit) {
    const std::string name = module + ".weight";
    LWQ_ASSIGN_OR_RETURN(const TensorView tensor, Check(name, {out, in}));
    if (!dtype_.has_value()) {
      dtype_ = tensor.dtype;
      first_linear_ = name;
    }
    if (*dtype_ != tensor.dtype) {
      return InvalidFailure("DTYPE_UNSUPPORTED",
                            absl::StrCat("tensor ", name, " is ", NameOf(tensor.dtype), " but ",
                                         first_linear_, " is ", NameOf(*dtype_),
                                         ": the weights of all linears must have one dtype"));
    }
    unit.linears.push_back({module, out, in});
    return absl::OkStatus();
  }

  absl::Status TakeUnit(int layer, const char* name, std::initializer_list<LinearRole> roles,
                        bool bias) {
    AllocationUnit unit{
        .name = absl::StrCat("layers.", layer, ".", name), .layer = layer, .linears = {}};
    for (LinearRole role : roles) {
      const std::string module = spec_.ModuleName(layer, role);
      LWQ_RETURN_IF_ERROR(
          TakeLinear(module, spec_.OutFeatures(role), spec_.InFeatures(role), unit));
      if (bias) LWQ_RETURN_IF_ERROR(TakeDense(module + ".bias", {spec_.OutFeatures(role)}));
    }
    inventory_.units.push_back(std::move(unit));
    return absl::OkStatus();
  }

  absl::Status TakeLayer(int layer) {
    using enum LinearRole;
    const std::string prefix = spec_.LayerPrefix(layer);
    LWQ_RETURN_IF_ERROR(
        TakeUnit(layer, "self_attn.qkv_proj", {kQuery, kKey, kValue}, spec_.attention_bias));
    LWQ_RETURN_IF_ERROR(
        TakeUnit(layer, "self_attn.o_proj", {kOutput}, spec_.attention_output_bias));
    LWQ_RETURN_IF_ERROR(TakeUnit(layer, "mlp.gate_up_proj", {kGate, kUp}, spec_.mlp_bias));
    LWQ_RETURN_IF_ERROR(TakeUnit(layer, "mlp.down_proj", {kDown}, spec_.mlp_bias));
    for (const char* norm : {"input_layernorm.weight", "post_attention_layernorm.weight"}) {
      LWQ_RETURN_IF_ERROR(TakeDense(prefix + norm, {spec_.hidden_size}));
    }
    if (!spec_.qk_norm) return absl::OkStatus();
    for (const char* norm : {"self_attn.q_norm.weight", "self_attn.k_norm.weight"}) {
      LWQ_RETURN_IF_ERROR(TakeDense(prefix + norm, {spec_.head_dim}));
    }
    return absl::OkStatus();
  }

  // A tensor the decoder would not read means that the model is not what config.json says. Two are
  // known to be redundant: a stored copy of a tied head, and old checkpoints' rotary frequencies.
  absl::Status RefuseLeftovers() const {
    for (const std::string& name : checkpoint_.tensor_names()) {
      if (taken_.contains(name)) continue;
      if (spec_.tied_embeddings && name == spec_.head_module() + ".weight") continue;
      if (absl::EndsWith(name, ".rotary_emb.inv_freq")) continue;
      return InvalidFailure("CONFIG_MISMATCH",
                            absl::StrCat("tensor ", name, " in ", checkpoint_.directory(),
                                         " is no part of a ", spec_.architecture, " of ",
                                         spec_.num_layers, " layers as config.json describes it"));
    }
    return absl::OkStatus();
  }

  void FillSizes() {
    inventory_.num_layers = spec_.num_layers;
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
  const Checkpoint& checkpoint_;
  ModelInventory inventory_;
  std::set<std::string> taken_;
  std::optional<DType> dtype_;
  std::string first_linear_;
};

}  // namespace

absl::StatusOr<ModelInventory> TakeInventory(const DecoderSpec& spec,
                                             const Checkpoint& checkpoint) {
  return InventoryTaker(spec, checkpoint).Take();
}

}  // namespace lwq

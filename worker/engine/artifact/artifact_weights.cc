#include "worker/engine/artifact/artifact_weights.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "worker/engine/artifact/load_stored.h"
#include "worker/engine/artifact/quantization_config.h"
#include "worker/engine/io/model_files.h"

namespace lwq {
namespace {

// A dense checkpoint that keeps its own files open.
class OwnedCheckpointWeights : public WeightSource {
 public:
  explicit OwnedCheckpointWeights(std::unique_ptr<Checkpoint> checkpoint)
      : checkpoint_(std::move(checkpoint)), dense_(MakeCheckpointWeights(checkpoint_.get())) {}

  absl::Status ReadLinear(absl::string_view module, MatrixView out) const override {
    return dense_->ReadLinear(module, out);
  }
  absl::Status ReadDense(absl::string_view tensor, int64_t first_row,
                         MatrixView out) const override {
    return dense_->ReadDense(tensor, first_row, out);
  }
  bool HasDense(absl::string_view tensor) const override { return dense_->HasDense(tensor); }
  absl::Status LoadLinear(absl::string_view module, Device* device,
                          DeviceView<float> out) const override {
    return dense_->LoadLinear(module, device, out);
  }
  absl::Status LoadDense(absl::string_view tensor, int64_t first_row, Device* device,
                         DeviceView<float> out) const override {
    return dense_->LoadDense(tensor, first_row, device, out);
  }

 protected:
  const Checkpoint& checkpoint() const { return *checkpoint_; }

 private:
  const std::unique_ptr<Checkpoint> checkpoint_;
  const std::unique_ptr<WeightSource> dense_;
};

using StoredLinears = absl::flat_hash_map<std::string, StoredLinear>;

// The linear whose weight a tensor's name stands for, null where it is none of `linears`.
const StoredLinear* FindByTensor(const StoredLinears& linears, absl::string_view tensor) {
  if (!absl::ConsumeSuffix(&tensor, ".weight")) return nullptr;
  const auto found = linears.find(tensor);
  return found == linears.end() ? nullptr : &found->second;
}

// Rows of a stored linear from `first_row` on.
absl::Status ReadRows(absl::string_view tensor, const StoredLinear& stored, int64_t first_row,
                      MatrixView out) {
  LWQ_RETURN_IF_ERROR(CheckStoredRows(tensor, stored, first_row, out.rows, out.cols));
  return stored.format->Dequantize(tensor, stored.parts, first_row, out);
}

// Puts inputs that are stored in another order to where they belong.
void RestoreOrder(const FoundLinear& found, MatrixView out) {
  if (found.input_order.empty()) return;
  std::vector<float> stored(static_cast<size_t>(out.cols));
  for (int64_t r = 0; r < out.rows; ++r) {
    float* row = out.Row(r);
    std::copy(row, row + out.cols, stored.begin());
    for (size_t j = 0; j < stored.size(); ++j) row[found.input_order[j]] = stored[j];
  }
}

class ArtifactWeights : public OwnedCheckpointWeights {
 public:
  ArtifactWeights(std::unique_ptr<Checkpoint> checkpoint, const LinearCoding& coding)
      : OwnedCheckpointWeights(std::move(checkpoint)), coding_(coding) {}

  // Finds and checks every quantized linear; each must be in one of the declared formats.
  absl::Status Index(const std::vector<const WeightFormat*>& declared) {
    const auto lookup = [&](absl::string_view name) { return checkpoint().Get(name); };
    for (const std::string& tensor : checkpoint().tensor_names()) {
      absl::string_view module = tensor;
      if (!absl::ConsumeSuffix(&module, coding_.mark())) continue;
      LWQ_ASSIGN_OR_ANNOTATE(FoundLinear linear, coding_.Find(module, lookup, declared),
                             checkpoint().directory());
      linears_.emplace(std::string(module), std::move(linear));
    }
    return absl::OkStatus();
  }

  absl::Status ReadLinear(absl::string_view module, MatrixView out) const override {
    const FoundLinear* found = Find(module);
    if (found == nullptr) return OwnedCheckpointWeights::ReadLinear(module, out);
    LWQ_ASSIGN_OR_RETURN(const OwnedLinear owned, coding_.Read(module, *found));
    LWQ_RETURN_IF_ERROR(DequantizeLinear(module, owned.linear, out));
    RestoreOrder(*found, out);
    return absl::OkStatus();
  }
  absl::Status LoadLinear(absl::string_view module, Device* device,
                          DeviceView<float> out) const override {
    const FoundLinear* found = Find(module);
    if (found == nullptr) return OwnedCheckpointWeights::LoadLinear(module, device, out);
    if (!found->input_order.empty()) return WeightSource::LoadLinear(module, device, out);
    LWQ_ASSIGN_OR_RETURN(const OwnedLinear owned, coding_.Read(module, *found));
    return LoadStored(module, owned.linear, device, out);
  }
  absl::Status ReadDense(absl::string_view tensor, int64_t first_row,
                         MatrixView out) const override {
    const FoundLinear* found = FindByTensor(tensor);
    if (found == nullptr) return OwnedCheckpointWeights::ReadDense(tensor, first_row, out);
    LWQ_ASSIGN_OR_RETURN(const OwnedLinear owned,
                         RowsOf(tensor, *found, first_row, out.rows, out.cols));
    LWQ_RETURN_IF_ERROR(ReadRows(tensor, owned.linear, first_row - owned.first_row, out));
    RestoreOrder(*found, out);
    return absl::OkStatus();
  }
  absl::Status LoadDense(absl::string_view tensor, int64_t first_row, Device* device,
                         DeviceView<float> out) const override {
    const FoundLinear* found = FindByTensor(tensor);
    if (found == nullptr) {
      return OwnedCheckpointWeights::LoadDense(tensor, first_row, device, out);
    }
    if (!found->input_order.empty()) {
      return WeightSource::LoadDense(tensor, first_row, device, out);
    }
    LWQ_ASSIGN_OR_RETURN(const OwnedLinear owned,
                         RowsOf(tensor, *found, first_row, out.rows, out.cols));
    return LoadStoredRows(tensor, owned.linear, first_row - owned.first_row, device, out);
  }
  ActivationRule RuleOf(absl::string_view module) const override {
    const FoundLinear* found = Find(module);
    return found == nullptr ? ActivationRule::kNone : found->format->activation_rule();
  }

 private:
  // Null where the module is not quantized.
  const FoundLinear* Find(absl::string_view module) const {
    const auto found = linears_.find(module);
    return found == linears_.end() ? nullptr : &found->second;
  }
  absl::StatusOr<OwnedLinear> RowsOf(absl::string_view tensor, const FoundLinear& found,
                                     int64_t first_row, int64_t rows, int64_t cols) const {
    const StoredLinear all{found.format, found.out_features, found.in_features, {}};
    LWQ_RETURN_IF_ERROR(CheckStoredRows(tensor, all, first_row, rows, cols));
    return coding_.ReadRows(tensor, found, first_row, rows);
  }
  // The linear whose weight a tensor's name stands for.
  const FoundLinear* FindByTensor(absl::string_view tensor) const {
    return absl::ConsumeSuffix(&tensor, ".weight") ? Find(tensor) : nullptr;
  }

  const LinearCoding& coding_;
  absl::flat_hash_map<std::string, FoundLinear> linears_;
};

class OverlayWeights : public WeightSource {
 public:
  OverlayWeights(const WeightSource* base, absl::flat_hash_map<std::string, StoredLinear> linears)
      : base_(base), linears_(std::move(linears)) {}
  OverlayWeights(std::unique_ptr<WeightSource> base,
                 absl::flat_hash_map<std::string, StoredLinear> linears)
      : owned_(std::move(base)), base_(owned_.get()), linears_(std::move(linears)) {}

  absl::Status ReadLinear(absl::string_view module, MatrixView out) const override {
    const auto found = linears_.find(module);
    if (found == linears_.end()) return base_->ReadLinear(module, out);
    return DequantizeLinear(module, found->second, out);
  }
  absl::Status ReadDense(absl::string_view tensor, int64_t first_row,
                         MatrixView out) const override {
    const StoredLinear* stored = FindByTensor(linears_, tensor);
    if (stored == nullptr) return base_->ReadDense(tensor, first_row, out);
    return ReadRows(tensor, *stored, first_row, out);
  }
  bool HasDense(absl::string_view tensor) const override { return base_->HasDense(tensor); }
  ActivationRule RuleOf(absl::string_view module) const override {
    const auto found = linears_.find(module);
    return found == linears_.end() ? base_->RuleOf(module)
                                   : found->second.format->activation_rule();
  }
  absl::Status LoadLinear(absl::string_view module, Device* device,
                          DeviceView<float> out) const override {
    const auto found = linears_.find(module);
    if (found == linears_.end()) return base_->LoadLinear(module, device, out);
    return LoadStored(module, found->second, device, out);
  }
  absl::Status LoadDense(absl::string_view tensor, int64_t first_row, Device* device,
                         DeviceView<float> out) const override {
    const StoredLinear* stored = FindByTensor(linears_, tensor);
    if (stored == nullptr) return base_->LoadDense(tensor, first_row, device, out);
    return LoadStoredRows(tensor, *stored, first_row, device, out);
  }

 private:
  const std::unique_ptr<WeightSource> owned_;  // null where the base is another's
  const WeightSource* const base_;
  const absl::flat_hash_map<std::string, StoredLinear> linears_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WeightSource>> OpenWeights(const std::string& directory) {
  if (!GgufFileOf(directory).empty()) {
    LWQ_ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> file, Checkpoint::Open(directory));
    return std::make_unique<OwnedCheckpointWeights>(std::move(file));
  }
  LWQ_ASSIGN_OR_RETURN(const DeclaredQuantization declared, ReadDeclaredQuantization(directory));
  LWQ_ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(directory));
  if (declared.coding == nullptr) {
    LWQ_RETURN_IF_ERROR(CheckFp8Declared(*checkpoint));
    return std::make_unique<OwnedCheckpointWeights>(std::move(checkpoint));
  }
  auto weights = std::make_unique<ArtifactWeights>(std::move(checkpoint), *declared.coding);
  LWQ_RETURN_IF_ERROR(weights->Index(declared.formats));
  return weights;
}

std::unique_ptr<WeightSource> MakeOverlayWeights(
    const WeightSource* base, absl::flat_hash_map<std::string, StoredLinear> replaced) {
  return std::make_unique<OverlayWeights>(base, std::move(replaced));
}

absl::StatusOr<std::unique_ptr<WeightSource>> MakePlanWeights(const WeightSource* base,
                                                              const ModelInventory& model,
                                                              const Plan& plan,
                                                              const BlobSet& blobs,
                                                              const LayerEdits* edits) {
  absl::flat_hash_map<std::string, StoredLinear> replaced;
  for (size_t i = 0; i < model.units.size(); ++i) {
    if (plan[i] == nullptr || plan[i]->dense()) continue;
    for (const LinearShape& linear : model.units[i].linears) {
      LWQ_ASSIGN_OR_RETURN(StoredLinear stored, blobs.Find(linear.module, plan[i]));
      replaced.emplace(linear.module, std::move(stored));
    }
  }
  if (edits == nullptr) return MakeOverlayWeights(base, std::move(replaced));
  return std::make_unique<OverlayWeights>(MakeEditedWeights(base, edits, model.weight_dtype),
                                          std::move(replaced));
}

}  // namespace lwq

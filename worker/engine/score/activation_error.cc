// Relative error of a unit's outputs on the calibration text: tr(dW H dW^T) / tr(W H W^T), with H
// the second moments of what it reads. Close to the measured KL for the price of two products.
#include <algorithm>
#include <optional>

#include "base/status_macros.h"
#include "worker/engine/score/scorer.h"

namespace lwq {
namespace {

constexpr absl::string_view kEvidence[] = {"second-moments", "layer-cosine"};
constexpr int64_t kRows = 512;

// tr(M H M^T), a block of rows at a time.
class OutputPower {
 public:
  static absl::StatusOr<OutputPower> Create(const UnitCostRequest& request, size_t input) {
    Device* device = request.source->device();
    const InputSpec& spec = request.source->spec().at(request.place).inputs[input];
    LWQ_ASSIGN_OR_RETURN(const auto triangle, request.evidence->Triangle(kEvidence[0], spec));
    // Made whole in the host and put back.
    Matrix h(spec.features, spec.features);
    LWQ_RETURN_IF_ERROR(device->Download(triangle->view(), h.view()));
    for (int64_t r = 0; r < h.rows(); ++r) {
      for (int64_t c = 0; c < r; ++c) h.Row(c)[r] = h.Row(r)[c];
    }
    OutputPower power;
    power.device_ = device;
    LWQ_RETURN_IF_ERROR(device->Upload(h.view(), triangle->view()));
    LWQ_ASSIGN_OR_RETURN(power.h_, device->PrepareWeight(triangle->view(), ComputeType::kF32));
    LWQ_ASSIGN_OR_RETURN(power.rows_, device->NewMatrix(kRows, spec.features));
    LWQ_ASSIGN_OR_RETURN(power.products_, device->NewMatrix(kRows, spec.features));
    return power;
  }

  absl::StatusOr<double> Of(ConstMatrixView m) const {
    Matrix products(std::min(kRows, m.rows), m.cols);
    double sum = 0;
    for (int64_t begin = 0; begin < m.rows; begin += kRows) {
      const ConstMatrixView rows = m.Rows(begin, std::min(kRows, m.rows - begin));
      const DeviceView<float> in = rows_->Rows(0, rows.rows), out = products_->Rows(0, rows.rows);
      LWQ_RETURN_IF_ERROR(device_->Upload(rows, in));
      LWQ_RETURN_IF_ERROR(device_->Linear(in, *h_, out));
      const MatrixView host = products.view().Rows(0, rows.rows);
      LWQ_RETURN_IF_ERROR(device_->Download(out, host));
      for (int64_t r = 0; r < rows.rows; ++r) {
        for (int64_t c = 0; c < rows.cols; ++c) sum += double{rows.Row(r)[c]} * host.Row(r)[c];
      }
    }
    return std::max(sum, 0.0);  // rounding may take a power of nothing below zero
  }

 private:
  Device* device_ = nullptr;
  std::unique_ptr<PreparedWeight> h_;
  std::unique_ptr<DeviceMatrix> rows_, products_;
};

absl::StatusOr<UnitCosts> ActivationErrors(const UnitCostRequest& request) {
  UnitCosts error = ZeroCosts(request), output = error;
  std::optional<OutputPower> power;
  std::optional<size_t> power_of;  // input
  double of_weight = 0;            // of the linear being visited
  LWQ_RETURN_IF_ERROR(ForEachError(request, [&](const LinearError& e) -> absl::Status {
    if (power_of != e.input) {
      power.reset();
      LWQ_ASSIGN_OR_RETURN(power, OutputPower::Create(request, e.input));
      power_of = e.input;
    }
    if (e.format == 0) {
      LWQ_ASSIGN_OR_RETURN(of_weight, power->Of(e.weight));
    }
    LWQ_ASSIGN_OR_RETURN(const double of_error, power->Of(e.error));
    error[e.unit][static_cast<size_t>(e.format)] += of_error;
    output[e.unit][static_cast<size_t>(e.format)] += of_weight;
    return absl::OkStatus();
  }));
  return Quotients(error, output);
}

}  // namespace

extern const ScorerDef activation_error_scorer;
const ScorerDef activation_error_scorer = {
    .name = "activation-error",
    .help = "the squared error of a unit's outputs over their squares, for every format",
    .evidence = kEvidence,
    .needs_quantized = true,
    .unit_costs = &ActivationErrors,
    .measures_all_formats = true};

}  // namespace lwq

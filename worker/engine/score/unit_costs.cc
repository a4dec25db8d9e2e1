#include "worker/engine/score/unit_costs.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace lwq {

absl::StatusOr<size_t> SlotOf(const LayerSpec& layer, const LinearShape& linear) {
  const std::optional<size_t> slot = layer.FindLinear(linear.module);
  if (slot.has_value()) {
    const LinearShape& shape = layer.linears[*slot].shape;
    if (shape.out_features == linear.out_features && shape.in_features == linear.in_features) {
      return *slot;
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(linear.module, " [", linear.out_features, ", ",
                                                 linear.in_features,
                                                 "] is not a linear of the layer"));
}

namespace {

// Of a linear in work, so that a head takes no more than a layer's.
constexpr int64_t kElementsAtOnce = int64_t{1} << 22;

// Visits rows [first, first + count) of a linear at every format of its unit.
absl::Status VisitRows(const UnitCostRequest& request, size_t unit, const LinearShape& linear,
                       int64_t first, int64_t count, size_t input,
                       absl::FunctionRef<absl::Status(const LinearError&)> visit) {
  Matrix weight(count, linear.in_features), error(count, linear.in_features);
  if (weight.data() == nullptr || error.data() == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory to score ", linear.module));
  }
  LWQ_RETURN_IF_ERROR(
      request.weights->ReadDense(absl::StrCat(linear.module, ".weight"), first, weight.view()));
  Device* device = request.source->device();
  LWQ_ASSIGN_OR_RETURN(auto replacement, device->NewMatrix(count, linear.in_features));
  for (int f = 0; f < request.num_formats[unit]; ++f) {
    LWQ_RETURN_IF_ERROR(request.replacement(unit, linear, f, first, replacement->view()));
    LWQ_RETURN_IF_ERROR(device->Download(replacement->view(), error.view()));
    for (int64_t i = 0; i < error.size(); ++i) error.data()[i] -= weight.data()[i];
    LWQ_RETURN_IF_ERROR(visit({unit, f, &linear, input, weight.view(), error.view()}));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ForEachError(const UnitCostRequest& request,
                          absl::FunctionRef<absl::Status(const LinearError&)> visit) {
  const LayerSpec& layer = request.source->spec().at(request.place);
  for (size_t u = 0; u < request.units.size(); ++u) {
    for (const LinearShape& linear : request.units[u].linears) {
      LWQ_ASSIGN_OR_RETURN(const size_t slot, SlotOf(layer, linear));
      const int64_t at_once = std::max<int64_t>(1, kElementsAtOnce / linear.in_features);
      for (int64_t first = 0; first < linear.out_features; first += at_once) {
        LWQ_RETURN_IF_ERROR(VisitRows(request, u, linear, first,
                                      std::min(at_once, linear.out_features - first),
                                      layer.linears[slot].input, visit));
      }
    }
    if (request.progress) {
      LWQ_RETURN_IF_ERROR(
          request.progress(static_cast<double>(u + 1) / static_cast<double>(request.units.size())));
    }
  }
  return absl::OkStatus();
}

UnitCosts ZeroCosts(const UnitCostRequest& request) {
  UnitCosts costs;
  for (int n : request.num_formats) costs.emplace_back(static_cast<size_t>(n));
  return costs;
}

UnitCosts Quotients(const UnitCosts& of, const UnitCosts& by) {
  UnitCosts quotients = of;
  for (size_t u = 0; u < of.size(); ++u) {
    for (size_t f = 0; f < of[u].size(); ++f) {
      quotients[u][f] = by[u][f] > 0 ? of[u][f] / by[u][f] : 0.0;
    }
  }
  return quotients;
}

double SumOfSquares(ConstMatrixView m) {
  double sum = 0;
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) sum += double{m.Row(r)[c]} * m.Row(r)[c];
  }
  return sum;
}

}  // namespace lwq

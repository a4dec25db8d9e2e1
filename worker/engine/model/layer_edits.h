// What a method changes of a model besides encoding its linears: norms and biases that it replaces,
// and scales that it moves along the edges of a layer (ScaleEdge), which the weights of the linears
// at both ends follow. A linear's own weights are not kept: they are the source's times the scales,
// rounded to the source's dtype, whoever needs them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "worker/engine/model/weight_source.h"
#include "worker/engine/tensor/dtype.h"
#include "worker/engine/tensor/matrix.h"

namespace lwq {

// Weight [r, c] becomes weight [r, c] * rows[r] * columns[c]. An empty list is all ones.
struct LinearScales {
  std::vector<float> rows;
  std::vector<float> columns;
};

// Of one layer, or of several.
struct LayerEdits {
  std::map<std::string, std::vector<float>> tensors;  // dense ones by name: what they become
  std::map<std::string, LinearScales> linears;        // by module

  bool empty() const { return tensors.empty() && linears.empty(); }
  void Add(LayerEdits other) {
    tensors.merge(other.tensors);
    linears.merge(other.linears);
  }
};

// Rows [first_row, first_row + weight.rows) of a linear, in place. INTERNAL where the scales are of
// another shape.
absl::Status ScaleRows(const LinearScales& scales, int64_t first_row, MatrixView weight);
// The nearest value of `dtype`, in place. INVALID_ARGUMENT "NON_FINITE_WEIGHTS" where one is past its
// range; `what` says whose it is.
absl::Status RoundTo(DType dtype, absl::string_view what, MatrixView values);

// `base` with the edits; both outlive it. `dtype` is that of the model's linears.
std::unique_ptr<WeightSource> MakeEditedWeights(const WeightSource* base, const LayerEdits* edits,
                                                DType dtype);

}  // namespace lwq

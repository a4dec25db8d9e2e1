// What methods that move scales along the edges of a layer share (AWQ, SmoothQuant): a scale goes
// from the tensor that puts out a channel (a norm, or the rows of a linear) into the columns of all
// linears that read it; then the linears are rounded. How the scales of an edge are found is the
// method's.
//
// The scales of an edge are chosen once, whatever formats are wanted: units of one layer in
// different formats share the norm, so any mix of them fits one set of edited tensors. A norm or
// bias is divided by scales whose quotient its dtype holds, so moving a scale costs nothing.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/evidence/input_evidence.h"
#include "worker/engine/quant/layer_quantizer.h"
#include "worker/engine/quant/scale_search.h"

namespace lwq {

class ScaleMover {
 public:
  // `request` outlives it; its evidence has channel-statistics. `method` is what records say.
  ScaleMover(const LayerRequest& request, absl::string_view method);
  virtual ~ScaleMover() = default;

  absl::StatusOr<LayerResult> Run();

 protected:
  // Makes of scales that are wanted of an edge those that can be stored.
  using Realize = std::function<std::vector<float>(std::vector<float>)>;

  // The scales by channel of an edge whose readers' input is `fitted`, which is not null.
  virtual absl::StatusOr<FoundScales> Search(const ScaleEdge& edge, const InputSpec& fitted,
                                             const Realize& realize) = 0;
  // For people: what was done to the columns of a linear whose FoundScales had that exponent.
  virtual std::string Note(double exponent) const = 0;
  // Rounds a linear, whose rows `load` gives with the scales in them. Here: to nearest, columns
  // weighed by their inputs.
  virtual absl::Status Round(const LinearSpec& linear, size_t unit, const InputEvidence& fitted,
                             const LinearScales& scales, const RowsLoader& load);

  // What an input is fitted to; its `input` is null for a starved expert's without anything
  // instead.
  absl::StatusOr<InputEvidence> FittedTo(size_t input) const;
  // Rows [first, first + out.rows) as the source has them.
  absl::Status ReadRows(const LinearShape& linear, int64_t first, MatrixView out) const;
  // Some rows of the linear, spread evenly.
  absl::StatusOr<Matrix> SampleRows(const LinearShape& linear) const;

  const LayerRequest& request_;
  const LayerSpec& layer_;
  LayerResult result_;

 private:
  // What of an edge's source is a vector that divides: a norm's weights, a linear's bias or
  // nothing.
  struct SourceVector {
    std::string tensor;  // empty: nothing
    std::vector<float> values;
    double offset = 0;
    std::vector<float> most;  // that each scale may be; empty: anything
  };
  absl::StatusOr<SourceVector> VectorOf(const ScaleEdge& edge) const;
  absl::StatusOr<std::vector<float>> LargestScales(const LinearShape& linear) const;
  std::vector<float> Divide(const SourceVector& source, std::vector<float>& scales) const;
  DType DTypeOf(const std::string& tensor) const;
  absl::StatusOr<FoundScales> SearchEdge(const ScaleEdge& edge);
  absl::Status Move(const ScaleEdge& edge, const FoundScales& found);
  absl::Status RoundScaled(const LinearSpec& linear, size_t unit);

  const std::string method_;
  std::vector<double> exponents_;  // by linear
};

}  // namespace lwq

#include "worker/engine/quant/scale_mover.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/device/scale_grid.h"
#include "worker/engine/evidence/channel_statistics.h"
#include "worker/engine/quant/block_rounding.h"
#include "worker/engine/quant/linear_checks.h"
#include "worker/engine/quant/rtn.h"

namespace lwq {
namespace {

constexpr absl::string_view kStatistics = "channel-statistics";
constexpr int64_t kSampledRows = 512;  // of each reader, for the search

// Rounds one linear to nearest with its columns weighed; no statistics are shared.
class WeightedRounding : public Quantizer {
 public:
  explicit WeightedRounding(DeviceSpan<const float> column_weights) : weights_(column_weights) {}

  absl::StatusOr<std::vector<QuantizedLinear>> Quantize(
      Device* device, DeviceView<const float> weight, const InputStatistics*,
      absl::Span<const GridSpec> grids) const override {
    LWQ_RETURN_IF_ERROR(CheckQuantizable(device, weight, grids));
    std::vector<QuantizedLinear> out;
    for (const GridSpec& grid : grids) {
      LWQ_ASSIGN_OR_RETURN(const DeviceLinear linear,
                           RoundToNearest(device, weight, grid, weights_));
      LWQ_ASSIGN_OR_RETURN(out.emplace_back(), ReadBack(device, weight, linear));
    }
    return out;
  }
  absl::StatusOr<std::vector<BlockLinear>> QuantizeToBlocks(
      Device* device, DeviceView<const float> weight, const InputStatistics*,
      absl::Span<const GgufTypeDef* const> types, GgufFit fit) const override {
    LWQ_RETURN_IF_ERROR(CheckQuantizable(device, weight, {}));
    std::vector<BlockLinear> out;
    for (const GgufTypeDef* type : types) {
      LWQ_ASSIGN_OR_RETURN(out.emplace_back(), RoundToBlocks(device, weight, *type, fit, weights_));
    }
    return out;
  }

 private:
  const DeviceSpan<const float> weights_;
};

}  // namespace

ScaleMover::ScaleMover(const LayerRequest& request, absl::string_view method)
    : request_(request), layer_(*request.layer), result_(EmptyResult(request)), method_(method) {}

absl::StatusOr<LayerResult> ScaleMover::Run() {
  const double steps = static_cast<double>(layer_.edges.size() + layer_.linears.size());
  double done = 0;
  for (size_t e = 0; request_.in_layer && e < layer_.edges.size(); ++e) {
    const std::string& first = layer_.linears[layer_.edges[e].readers[0]].shape.module;
    LWQ_RETURN_IF_ERROR(request_.progress(done++ / steps, first));
    LWQ_ASSIGN_OR_ANNOTATE(const FoundScales found, SearchEdge(layer_.edges[e]), first);
    LWQ_RETURN_IF_ERROR(Move(layer_.edges[e], found));
  }
  for (const LinearSpec& linear : layer_.linears) {
    LWQ_RETURN_IF_ERROR(request_.progress(done++ / steps, linear.shape.module));
    const int unit = FindWanted(request_, linear.shape.module);
    if (unit >= 0) LWQ_RETURN_IF_ERROR(RoundScaled(linear, static_cast<size_t>(unit)));
  }
  return std::move(result_);
}

absl::StatusOr<InputEvidence> ScaleMover::FittedTo(size_t input) const {
  return EvidenceFor(layer_, layer_.inputs[input], *request_.evidence);
}

absl::Status ScaleMover::ReadRows(const LinearShape& linear, int64_t first, MatrixView out) const {
  return request_.weights->ReadDense(absl::StrCat(linear.module, ".weight"), first, out);
}

absl::StatusOr<Matrix> ScaleMover::SampleRows(const LinearShape& linear) const {
  Matrix rows(std::min(kSampledRows, linear.out_features), linear.in_features);
  for (int64_t r = 0; r < rows.rows(); ++r) {
    LWQ_RETURN_IF_ERROR(
        ReadRows(linear, r * linear.out_features / rows.rows(), rows.view().Rows(r, 1)));
  }
  return rows;
}

absl::StatusOr<FoundScales> ScaleMover::SearchEdge(const ScaleEdge& edge) {
  // Readers of an edge have one input: they read one source.
  LWQ_ASSIGN_OR_RETURN(const InputEvidence fitted, FittedTo(layer_.linears[edge.readers[0]].input));
  if (fitted.input == nullptr) return FoundScales();  // nothing tells its channels apart
  LWQ_ASSIGN_OR_RETURN(const SourceVector source, VectorOf(edge));
  return Search(edge, *fitted.input, [&](std::vector<float> scales) {
    Divide(source, scales);
    return scales;
  });
}

absl::StatusOr<ScaleMover::SourceVector> ScaleMover::VectorOf(const ScaleEdge& edge) const {
  SourceVector source;
  int64_t size = 0;
  if (edge.source == ScaleEdge::Source::kNorm) {
    const NormSpec& norm = layer_.norms[edge.index];
    source = {norm.tensor, {}, request_.norm_offset};
    size = norm.size;
  } else {
    const LinearSpec& linear = layer_.linears[edge.index];
    LWQ_ASSIGN_OR_RETURN(source.most, LargestScales(linear.shape));
    if (linear.bias) {
      source.tensor = linear.bias_name();
      size = linear.shape.out_features;
    }
  }
  source.values.resize(static_cast<size_t>(size));
  if (source.tensor.empty()) return source;
  LWQ_RETURN_IF_ERROR(request_.weights->ReadDense(source.tensor, 0,
                                                  MatrixView{source.values.data(), 1, size, size}));
  return source;
}

// By how much each row of a linear may be divided and still have all of its finest steps: below
// that, its scale would be the smallest that is stored, and its codes fewer.
absl::StatusOr<std::vector<float>> ScaleMover::LargestScales(const LinearShape& linear) const {
  constexpr float kLeast = 127 * kMinScale;
  constexpr int64_t kRows = 256;
  std::vector<float> most;
  for (int64_t first = 0; first < linear.out_features; first += kRows) {
    Matrix rows(std::min(kRows, linear.out_features - first), linear.in_features);
    LWQ_RETURN_IF_ERROR(ReadRows(linear, first, rows.view()));
    for (int64_t r = 0; r < rows.rows(); ++r) {
      float largest = 0;
      for (int64_t c = 0; c < rows.cols(); ++c) {
        largest = std::max(largest, std::abs(rows.Row(r)[c]));
      }
      most.push_back(std::max(1.0f, largest / kLeast));
    }
  }
  return most;
}

// The source over the scales, as its dtype holds it; a scale becomes the quotient that was really
// taken, or one where none can be.
std::vector<float> ScaleMover::Divide(const SourceVector& source,
                                      std::vector<float>& scales) const {
  for (size_t c = 0; c < source.most.size(); ++c) {
    scales[c] = std::min(scales[c], source.most[c]);
  }
  const DType dtype = DTypeOf(source.tensor);
  std::vector<float> divided(source.values.size());
  for (size_t c = 0; c < divided.size(); ++c) {
    const double acts_as = source.values[c] + source.offset;
    divided[c] = source.values[c];
    if (acts_as == 0) continue;  // over any scale it is nothing
    divided[c] = static_cast<float>(acts_as / scales[c] - source.offset);
    const bool held = RoundTo(dtype, source.tensor, MatrixView{&divided[c], 1, 1, 1}).ok();
    const double quotient = acts_as / (divided[c] + source.offset);
    if (held && std::isfinite(quotient) && quotient > 0) {
      scales[c] = static_cast<float>(quotient);
    } else {
      divided[c] = source.values[c];
      scales[c] = 1;
    }
  }
  return divided;
}

DType ScaleMover::DTypeOf(const std::string& tensor) const {
  for (const DenseTensor& dense : request_.model->dense) {
    if (dense.name == tensor) return dense.dtype;
  }
  return request_.model->weight_dtype;
}

// Writes down what the scales change.
absl::Status ScaleMover::Move(const ScaleEdge& edge, const FoundScales& found) {
  exponents_.resize(layer_.linears.size(), 0.0);
  for (const size_t reader : edge.readers) exponents_[reader] = found.exponent;
  if (found.exponent == 0) return absl::OkStatus();
  std::vector<float> scales = found.scales;
  LWQ_ASSIGN_OR_RETURN(const SourceVector source, VectorOf(edge));
  // Once more on what Divide left: the same quotients come out.
  std::vector<float> divided = Divide(source, scales);
  if (!source.tensor.empty()) result_.edits.tensors[source.tensor] = std::move(divided);
  if (edge.source == ScaleEdge::Source::kLinear) {
    const std::string& module = layer_.linears[edge.index].shape.module;
    std::vector<float>& rows = result_.edits.linears[module].rows;
    for (const float scale : scales) rows.push_back(1 / scale);
  }
  for (const size_t reader : edge.readers) {
    const LinearShape& shape = layer_.linears[reader].shape;
    std::vector<float>& columns = result_.edits.linears[shape.module].columns;
    for (int64_t c = 0; c < shape.in_features; ++c) {
      columns.push_back(scales[static_cast<size_t>(edge.ChannelOf(c))]);
    }
  }
  return absl::OkStatus();
}

absl::Status ScaleMover::RoundScaled(const LinearSpec& linear, size_t unit) {
  const LinearShape& shape = linear.shape;
  const auto edited = result_.edits.linears.find(shape.module);
  const LinearScales scales =
      edited == result_.edits.linears.end() ? LinearScales() : edited->second;
  const RowsLoader load = [&](int64_t first, DeviceView<float> rows) -> absl::Status {
    Matrix host(rows.rows, rows.cols);
    LWQ_RETURN_IF_ERROR(ReadRows(shape, first, host.view()));
    LWQ_RETURN_IF_ERROR(ScaleRows(scales, first, host.view()));
    return request_.device->Upload(host.view(), rows);
  };
  const size_t first = result_.linears.size();
  LWQ_ASSIGN_OR_RETURN(const InputEvidence fitted, FittedTo(linear.input));
  LWQ_RETURN_IF_ERROR(Round(linear, unit, fitted, scales, load));
  for (size_t i = first; i < result_.linears.size(); ++i) {
    LinearRecord& record = result_.linears[i].record;
    record.method = method_;
    const size_t index = static_cast<size_t>(&linear - layer_.linears.data());
    const double exponent = index < exponents_.size() ? exponents_[index] : 0;
    if (exponent > 0) record.note = Note(exponent);
    if (!fitted.note.empty()) record.note = fitted.note;
  }
  return absl::OkStatus();
}

absl::Status ScaleMover::Round(const LinearSpec& linear, size_t unit, const InputEvidence& fitted,
                               const LinearScales& scales, const RowsLoader& load) {
  if (fitted.input == nullptr) {
    return AddLinear(request_, WeightedRounding({}), nullptr, linear.shape, unit, load, result_);
  }
  LWQ_ASSIGN_OR_RETURN(const Matrix table,
                       request_.evidence->Table(kStatistics, *fitted.input, kNumChannelRows));
  const absl::Span<const float> squares(table.Row(kMeanSquare), static_cast<size_t>(table.cols()));
  const std::vector<float> weights = ColumnWeights(squares, scales.columns);
  LWQ_ASSIGN_OR_RETURN(const auto on_device, request_.device->NewMatrix(1, table.cols()));
  LWQ_RETURN_IF_ERROR(request_.device->Upload(absl::MakeConstSpan(weights), on_device->span()));
  return AddLinear(request_, WeightedRounding(on_device->span()), nullptr, linear.shape, unit, load,
                   result_);
}

}  // namespace lwq

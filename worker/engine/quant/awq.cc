// AWQ (methods 4.1): along each edge of the layer a scale is moved from the tensor that puts out a
// channel (a norm, or the rows of a linear) into the columns of all linears that read it, chosen by
// the inputs' magnitudes so that rounding those columns costs the outputs least. Then the linears
// are rounded: to nearest, or by GPTQ.
//
// What differs from the published method, and why. The loss is the squared error of the readers'
// own outputs, from second moments, not that of the attention or MLP behind them: no forward pass.
// The scales of an edge are chosen once, on one reference grid, whatever formats are wanted: units
// of one layer in different formats share the norm, so any mix of them fits one set of edited
// tensors. A norm or bias is divided by scales whose quotient its dtype holds, so moving a scale
// costs nothing. In place of the search for clipping, scales of groups are searched for, weighted
// by the inputs.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "worker/engine/device/scale_grid.h"
#include "worker/engine/evidence/channel_statistics.h"
#include "worker/engine/evidence/input_evidence.h"
#include "worker/engine/quant/block_rounding.h"
#include "worker/engine/quant/layer_quantizer.h"
#include "worker/engine/quant/linear_checks.h"
#include "worker/engine/quant/rtn.h"
#include "worker/engine/quant/scale_search.h"

namespace lwq {

extern const QuantizerDef quantizer_awq;
extern const QuantizerDef quantizer_gptq;

namespace {

constexpr absl::string_view kEvidence[] = {"channel-statistics", "second-moments"};
constexpr int64_t kSampledRows = 512;  // of each reader, for the search
constexpr int64_t kGroups[] = {128, 64, 32};

constexpr OptionDef kRounding = {
    .name = "rounding",
    .type = OptionDef::Type::kChoice,
    .default_value = "nearest",
    .choices = "nearest,gptq",
    .help = "how the scaled weights are rounded: to nearest, as published, or by GPTQ",
};
constexpr OptionDef kSearchBits = {
    .name = "search-bits",
    .type = OptionDef::Type::kInteger,
    .default_value = "3",
    .minimum = 2,
    .maximum = 8,
    .help = "the width that scales are chosen for; all formats of a layer share them",
};
constexpr OptionDef kOptions[] = {kRounding, kScaleSearch, kSearchBits};

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

class AwqRun {
 public:
  explicit AwqRun(const LayerRequest& request)
      : request_(request), layer_(*request.layer), result_(EmptyResult(request)) {}

  absl::StatusOr<LayerResult> Run() {
    const double steps = static_cast<double>(layer_.edges.size() + layer_.linears.size());
    double done = 0;
    for (size_t e = 0; request_.in_layer && e < layer_.edges.size(); ++e) {
      const std::string& first = layer_.linears[layer_.edges[e].readers[0]].shape.module;
      LWQ_RETURN_IF_ERROR(request_.progress(done++ / steps, first));
      LWQ_ASSIGN_OR_ANNOTATE(const FoundScales found, Search(layer_.edges[e]), first);
      LWQ_RETURN_IF_ERROR(Move(layer_.edges[e], found));
    }
    for (const LinearSpec& linear : layer_.linears) {
      LWQ_RETURN_IF_ERROR(request_.progress(done++ / steps, linear.shape.module));
      const int unit = FindWanted(request_, linear.shape.module);
      if (unit >= 0) LWQ_RETURN_IF_ERROR(Round(linear, static_cast<size_t>(unit)));
    }
    return std::move(result_);
  }

 private:
  GridSpec ReferenceGrid(int64_t in_features) const {
    GridSpec grid;
    grid.bits = static_cast<int>(request_.options.Integer(kSearchBits.name));
    grid.group_size = 0;
    for (const int64_t group : kGroups) {
      if (in_features % group == 0 && grid.group_size == 0) grid.group_size = group;
    }
    grid.search = request_.options.Flag(kScaleSearch.name);
    return grid;
  }

  // What an input is fitted to; its `input` is null for a starved expert's without anything
  // instead.
  absl::StatusOr<InputEvidence> FittedTo(size_t input) const {
    return EvidenceFor(layer_, layer_.inputs[input], *request_.evidence);
  }

  // One input's second moments at a time: those of the next edge replace them.
  absl::StatusOr<const OutputPower*> PowerOf(const InputSpec* input) {
    if (power_ == nullptr || power_of_ != input) {
      power_.reset();
      LWQ_ASSIGN_OR_RETURN(auto triangle, request_.evidence->Triangle(kEvidence[1], *input));
      LWQ_ASSIGN_OR_RETURN(OutputPower power,
                           OutputPower::Create(request_.device, std::move(triangle)));
      power_ = std::make_unique<OutputPower>(std::move(power));
      power_of_ = input;
    }
    return power_.get();
  }

  // Mean magnitude of each channel that the edge's source puts out, over the columns that read it.
  absl::StatusOr<std::vector<float>> Magnitudes(const ScaleEdge& edge,
                                                const InputSpec& input) const {
    LWQ_ASSIGN_OR_RETURN(const Matrix table,
                         request_.evidence->Table(kEvidence[0], input, kNumChannelRows));
    std::vector<float> magnitudes(static_cast<size_t>(input.features / edge.repeats), 0.0f);
    for (int64_t c = 0; c < input.features; ++c) {
      magnitudes[static_cast<size_t>(edge.ChannelOf(c))] +=
          table.Row(kMeanMagnitude)[c] / static_cast<float>(edge.repeats);
    }
    return magnitudes;
  }

  // Rows [first, first + out.rows) as the source has them.
  absl::Status ReadRows(const LinearShape& linear, int64_t first, MatrixView out) const {
    return request_.weights->ReadDense(absl::StrCat(linear.module, ".weight"), first, out);
  }

  // Some rows of the linear, spread evenly.
  absl::StatusOr<Matrix> SampleRows(const LinearShape& linear) const {
    Matrix rows(std::min(kSampledRows, linear.out_features), linear.in_features);
    for (int64_t r = 0; r < rows.rows(); ++r) {
      LWQ_RETURN_IF_ERROR(
          ReadRows(linear, r * linear.out_features / rows.rows(), rows.view().Rows(r, 1)));
    }
    return rows;
  }

  absl::StatusOr<FoundScales> Search(const ScaleEdge& edge) {
    // Readers of an edge have one input: they read one source.
    LWQ_ASSIGN_OR_RETURN(const InputEvidence fitted,
                         FittedTo(layer_.linears[edge.readers[0]].input));
    if (fitted.input == nullptr) return FoundScales();  // nothing tells its channels apart
    LWQ_ASSIGN_OR_RETURN(const std::vector<float> magnitudes, Magnitudes(edge, *fitted.input));
    std::vector<ScaledReader> readers;
    LWQ_ASSIGN_OR_RETURN(const OutputPower* power, PowerOf(fitted.input));
    for (const size_t reader : edge.readers) {
      LWQ_ASSIGN_OR_RETURN(Matrix rows, SampleRows(layer_.linears[reader].shape));
      readers.push_back(
          {std::move(rows), power, [&edge](int64_t column) { return edge.ChannelOf(column); }});
    }
    const GridSpec grid = ReferenceGrid(readers[0].rows.cols());
    LWQ_ASSIGN_OR_RETURN(const SourceVector source, VectorOf(edge));
    return FindScales(request_.device, magnitudes, readers, grid, [&](std::vector<float> scales) {
      Divide(source, scales);
      return scales;
    });
  }

  // What of an edge's source is a vector that divides: a norm's weights, a linear's bias or
  // nothing.
  struct SourceVector {
    std::string tensor;  // empty: nothing
    std::vector<float> values;
    double offset = 0;
    std::vector<float> most;  // that each scale may be; empty: anything
  };
  absl::StatusOr<SourceVector> VectorOf(const ScaleEdge& edge) const {
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
    LWQ_RETURN_IF_ERROR(request_.weights->ReadDense(
        source.tensor, 0, MatrixView{source.values.data(), 1, size, size}));
    return source;
  }

  // By how much each row of a linear may be divided and still have all of its finest steps: below
  // that, its scale would be the smallest that is stored, and its codes fewer.
  absl::StatusOr<std::vector<float>> LargestScales(const LinearShape& linear) const {
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
  std::vector<float> Divide(const SourceVector& source, std::vector<float>& scales) const {
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

  DType DTypeOf(const std::string& tensor) const {
    for (const DenseTensor& dense : request_.model->dense) {
      if (dense.name == tensor) return dense.dtype;
    }
    return request_.model->weight_dtype;
  }

  // Writes down what the scales change.
  absl::Status Move(const ScaleEdge& edge, const FoundScales& found) {
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

  absl::Status Round(const LinearSpec& linear, size_t unit) {
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
    const bool nearest = request_.options.Choice(kRounding.name) == kRounding.default_value;
    LWQ_RETURN_IF_ERROR(nearest || fitted.input == nullptr
                            ? RoundToNearestWeighted(linear, unit, fitted, scales, load)
                            : RoundByGptq(linear, unit, fitted, scales, load));
    for (size_t i = first; i < result_.linears.size(); ++i) {
      LinearRecord& record = result_.linears[i].record;
      record.method = std::string(quantizer_awq.name);
      const size_t index = static_cast<size_t>(&linear - layer_.linears.data());
      const double exponent = index < exponents_.size() ? exponents_[index] : 0;
      if (exponent > 0) {
        record.note = absl::StrFormat(
            "columns scaled by their inputs' magnitudes to the power %.2f", exponent);
      }
      if (!fitted.note.empty()) record.note = fitted.note;
    }
    return absl::OkStatus();
  }

  absl::Status RoundToNearestWeighted(const LinearSpec& linear, size_t unit,
                                      const InputEvidence& fitted, const LinearScales& scales,
                                      const RowsLoader& load) {
    if (fitted.input == nullptr) {
      return AddLinear(request_, WeightedRounding({}), nullptr, linear.shape, unit, load, result_);
    }
    LWQ_ASSIGN_OR_RETURN(const Matrix table,
                         request_.evidence->Table(kEvidence[0], *fitted.input, kNumChannelRows));
    const absl::Span<const float> squares(table.Row(kMeanSquare),
                                          static_cast<size_t>(table.cols()));
    const std::vector<float> weights = ColumnWeights(squares, scales.columns);
    LWQ_ASSIGN_OR_RETURN(const auto on_device, request_.device->NewMatrix(1, table.cols()));
    LWQ_RETURN_IF_ERROR(request_.device->Upload(absl::MakeConstSpan(weights), on_device->span()));
    return AddLinear(request_, WeightedRounding(on_device->span()), nullptr, linear.shape, unit,
                     load, result_);
  }

  // Linears with one input follow each other and have one list of column scales: they share its
  // factor.
  absl::Status RoundByGptq(const LinearSpec& linear, size_t unit, const InputEvidence& fitted,
                           const LinearScales& scales, const RowsLoader& load) {
    const auto quantizer = quantizer_gptq.make(OptionValues(quantizer_gptq.options));
    if (statistics_ == nullptr || statistics_of_ != fitted.input ||
        statistics_columns_ != scales.columns) {
      power_.reset();
      statistics_.reset();
      LWQ_ASSIGN_OR_RETURN(auto gram, request_.evidence->Triangle(kEvidence[1], *fitted.input));
      LWQ_RETURN_IF_ERROR(DivideTriangle(scales.columns, gram->view()));
      LWQ_ASSIGN_OR_RETURN(statistics_, quantizer->Prepare(request_.device, std::move(gram),
                                                           fitted.num_tokens, request_.compute));
      statistics_of_ = fitted.input;
      statistics_columns_ = scales.columns;
    }
    return AddLinear(request_, *quantizer, statistics_.get(), linear.shape, unit, load, result_);
  }

  // The second moments of the inputs once they are divided by the scales.
  absl::Status DivideTriangle(const std::vector<float>& scales, DeviceView<float> gram) const {
    if (scales.empty()) return absl::OkStatus();
    constexpr int64_t kRows = 256;
    Matrix host(std::min(kRows, gram.rows), gram.cols);
    for (int64_t begin = 0; begin < gram.rows; begin += kRows) {
      const MatrixView rows = host.view().Rows(0, std::min(kRows, gram.rows - begin));
      const DeviceView<float> on_device = gram.Rows(begin, rows.rows);
      LWQ_RETURN_IF_ERROR(request_.device->Download(on_device, rows));
      for (int64_t r = 0; r < rows.rows; ++r) {
        const float of_row = scales[static_cast<size_t>(begin + r)];
        for (int64_t c = 0; c <= begin + r; ++c) {
          rows.Row(r)[c] /= of_row * scales[static_cast<size_t>(c)];
        }
      }
      LWQ_RETURN_IF_ERROR(request_.device->Upload(rows, on_device));
    }
    return absl::OkStatus();
  }

  const LayerRequest& request_;
  const LayerSpec& layer_;
  LayerResult result_;
  std::vector<double> exponents_;  // by linear
  std::unique_ptr<OutputPower> power_;
  const InputSpec* power_of_ = nullptr;
  std::shared_ptr<const InputStatistics> statistics_;
  const InputSpec* statistics_of_ = nullptr;
  std::vector<float> statistics_columns_;
};

absl::StatusOr<LayerResult> QuantizeByAwq(const LayerRequest& request) {
  return AwqRun(request).Run();
}

}  // namespace

constinit const QuantizerDef quantizer_awq = {
    .name = "awq",
    .help =
        "moves scales from norms and linears into the columns that see large inputs, then rounds",
    .evidence = kEvidence,
    .options = kOptions,
    .quantize_layer = &QuantizeByAwq,
    .edits_tensors = true,
};

}  // namespace lwq

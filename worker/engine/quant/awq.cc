// AWQ (methods 4.1): along each edge of the layer a scale is moved from the tensor that puts out a
// channel (a norm, or the rows of a linear) into the columns of all linears that read it, chosen by
// the inputs' magnitudes so that rounding those columns costs the outputs least. Then the linears
// are rounded: to nearest, or by GPTQ.
//
// What differs from the published method, and why. The loss is the squared error of the readers'
// own outputs, from second moments, not that of the attention or MLP behind them: no forward pass.
// The scales of an edge are chosen on one reference grid, whatever formats are wanted
// (scale_mover.h). In place of the search for clipping, scales of groups are searched for, weighted
// by the inputs.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "worker/engine/evidence/channel_statistics.h"
#include "worker/engine/quant/scale_mover.h"

namespace lwq {

extern const QuantizerDef quantizer_awq;
extern const QuantizerDef quantizer_gptq;

namespace {

constexpr absl::string_view kEvidence[] = {"channel-statistics", "second-moments"};
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

class AwqRun final : public ScaleMover {
 public:
  explicit AwqRun(const LayerRequest& request) : ScaleMover(request, quantizer_awq.name) {}

 protected:
  absl::StatusOr<FoundScales> Search(const ScaleEdge& edge, const InputSpec& fitted,
                                     const Realize& realize) override {
    LWQ_ASSIGN_OR_RETURN(const std::vector<float> magnitudes, Magnitudes(edge, fitted));
    std::vector<ScaledReader> readers;
    LWQ_ASSIGN_OR_RETURN(const OutputPower* power, PowerOf(&fitted));
    for (const size_t reader : edge.readers) {
      LWQ_ASSIGN_OR_RETURN(Matrix rows, SampleRows(layer_.linears[reader].shape));
      readers.push_back(
          {std::move(rows), power, [&edge](int64_t column) { return edge.ChannelOf(column); }});
    }
    const GridSpec grid = ReferenceGrid(readers[0].rows.cols());
    return FindScales(request_.device, magnitudes, readers, grid, realize);
  }

  std::string Note(double exponent) const override {
    return absl::StrFormat("columns scaled by their inputs' magnitudes to the power %.2f",
                           exponent);
  }

  absl::Status Round(const LinearSpec& linear, size_t unit, const InputEvidence& fitted,
                     const LinearScales& scales, const RowsLoader& load) override {
    const bool nearest = request_.options.Choice(kRounding.name) == kRounding.default_value;
    return nearest || fitted.input == nullptr
               ? ScaleMover::Round(linear, unit, fitted, scales, load)
               : RoundByGptq(linear, unit, fitted, scales, load);
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

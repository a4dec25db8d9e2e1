// SmoothQuant (methods 4.2), for linears whose inputs are rounded too (int8-row-a8): where single
// channels of an input are far larger than the others, a token's scale is theirs and the others
// lose their steps. Along each edge of the layer a part of the channels' sizes is moved into the
// weights,
//
//   s[c] = max|x[c]|^alpha / max|w[c]|^(1 - alpha),   x / s,   w s,
//
// over their geometric mean, which costs nothing (scale_mover.h). Then the weights are rounded to
// nearest.
//
// What differs from the published method, and why. alpha is searched for edge by edge, from nothing
// moved up to 1, by what it is for: the error of the readers' outputs on some of the calibration's
// tokens, weights and inputs rounded as int8-row-a8 does, whatever formats are wanted. With nothing
// moved among the candidates all edges take part, the inputs of o and down too.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "worker/engine/evidence/channel_statistics.h"
#include "worker/engine/evidence/input_rows.h"
#include "worker/engine/quant/rtn.h"
#include "worker/engine/quant/scale_mover.h"

namespace lwq {

extern const QuantizerDef quantizer_smoothquant;

namespace {

constexpr absl::string_view kEvidence[] = {"channel-statistics", "input-rows"};
constexpr OptionDef kOptions[] = {kScaleSearch};
constexpr int kAlphas = 20;
constexpr float kLeast = 1e-5f;  // of a channel's size and of its scale, as published
constexpr int64_t kRowsAtOnce = 256;

// Some tokens' inputs, and what some rows of the linears that read them make of them.
struct Reader {
  Matrix weight;   // [rows, in]
  Matrix outputs;  // [tokens, rows]
};

class SmoothQuantRun final : public ScaleMover {
 public:
  explicit SmoothQuantRun(const LayerRequest& request)
      : ScaleMover(request, quantizer_smoothquant.name) {}

 protected:
  absl::StatusOr<FoundScales> Search(const ScaleEdge& edge, const InputSpec& fitted,
                                     const Realize& realize) override {
    LWQ_ASSIGN_OR_RETURN(const Matrix inputs,
                         request_.evidence->Table(kEvidence[1], fitted, kNumInputRows));
    LWQ_ASSIGN_OR_RETURN(const std::vector<float> of_inputs, InputSizes(edge, fitted));
    LWQ_ASSIGN_OR_RETURN(const std::vector<float> of_weights, WeightSizes(edge));
    LWQ_ASSIGN_OR_RETURN(const std::vector<Reader> readers, ReadersOf(edge, inputs));
    FoundScales best;
    for (int step = 0; step <= kAlphas; ++step) {
      const double alpha = static_cast<double>(step) / kAlphas;
      std::vector<float> scales = step == 0 ? std::vector<float>(of_inputs.size(), 1.0f)
                                            : realize(Candidate(of_inputs, of_weights, alpha));
      LWQ_ASSIGN_OR_RETURN(const double loss, LossOf(edge, inputs, readers, scales));
      if (step == 0) best.unscaled_loss = loss;
      if (step > 0 && !(loss < best.loss)) continue;
      best.scales = std::move(scales);
      best.exponent = alpha;
      best.loss = loss;
    }
    return best;
  }

  std::string Note(double exponent) const override {
    return absl::StrFormat("inputs smoothed with alpha %.2f", exponent);
  }

 private:
  static std::vector<float> Candidate(const std::vector<float>& of_inputs,
                                      const std::vector<float>& of_weights, double alpha) {
    std::vector<float> scales;
    for (size_t c = 0; c < of_inputs.size(); ++c) {
      const double scale =
          std::pow(double{of_inputs[c]}, alpha) / std::pow(double{of_weights[c]}, 1 - alpha);
      scales.push_back(std::max(static_cast<float>(scale), kLeast));
    }
    return OverTheirMiddle(std::move(scales));
  }

  // The largest magnitude of each channel that the edge's source puts out, over the columns that
  // read it.
  absl::StatusOr<std::vector<float>> InputSizes(const ScaleEdge& edge,
                                                const InputSpec& input) const {
    LWQ_ASSIGN_OR_RETURN(const Matrix table,
                         request_.evidence->Table(kEvidence[0], input, kNumChannelRows));
    std::vector<float> sizes(static_cast<size_t>(input.features / edge.repeats), kLeast);
    for (int64_t c = 0; c < input.features; ++c) {
      float& size = sizes[static_cast<size_t>(edge.ChannelOf(c))];
      size = std::max(size, table.Row(kLargestMagnitude)[c]);
    }
    return sizes;
  }

  absl::StatusOr<std::vector<float>> WeightSizes(const ScaleEdge& edge) const {
    std::vector<float> sizes;
    for (const size_t reader : edge.readers) {
      const LinearShape& linear = layer_.linears[reader].shape;
      sizes.resize(static_cast<size_t>(linear.in_features / edge.repeats), kLeast);
      Matrix host(std::min(kRowsAtOnce, linear.out_features), linear.in_features);
      for (int64_t first = 0; first < linear.out_features; first += kRowsAtOnce) {
        const MatrixView rows =
            host.view().Rows(0, std::min(kRowsAtOnce, linear.out_features - first));
        LWQ_RETURN_IF_ERROR(ReadRows(linear, first, rows));
        for (int64_t r = 0; r < rows.rows; ++r) {
          for (int64_t c = 0; c < rows.cols; ++c) {
            float& size = sizes[static_cast<size_t>(edge.ChannelOf(c))];
            size = std::max(size, std::abs(rows.Row(r)[c]));
          }
        }
      }
    }
    return sizes;
  }

  absl::StatusOr<std::vector<Reader>> ReadersOf(const ScaleEdge& edge, const Matrix& inputs) const {
    LWQ_ASSIGN_OR_RETURN(const auto x, Uploaded(inputs));
    std::vector<Reader> readers;
    for (const size_t linear : edge.readers) {
      Reader& reader = readers.emplace_back();
      LWQ_ASSIGN_OR_RETURN(reader.weight, SampleRows(layer_.linears[linear].shape));
      LWQ_ASSIGN_OR_RETURN(const auto weight, Uploaded(reader.weight));
      LWQ_ASSIGN_OR_RETURN(reader.outputs, Product(x->view(), weight->view()));
    }
    return readers;
  }

  // Squared error of the readers' outputs, inputs and weights rounded.
  absl::StatusOr<double> LossOf(const ScaleEdge& edge, const Matrix& inputs,
                                const std::vector<Reader>& readers,
                                const std::vector<float>& scales) const {
    const auto scale_of = [&](int64_t column) {
      return scales[static_cast<size_t>(edge.ChannelOf(column))];
    };
    Matrix scaled(inputs.rows(), inputs.cols());
    for (int64_t t = 0; t < inputs.rows(); ++t) {
      for (int64_t c = 0; c < inputs.cols(); ++c) {
        scaled.Row(t)[c] = inputs.Row(t)[c] / scale_of(c);
      }
    }
    LWQ_ASSIGN_OR_RETURN(const auto x, Uploaded(scaled));
    LWQ_RETURN_IF_ERROR(request_.device->RoundRows(ActivationRule::kInt8PerToken, x->view()));
    double loss = 0;
    for (const Reader& reader : readers) {
      LWQ_ASSIGN_OR_RETURN(const Matrix outputs, RoundedOutputs(x->view(), reader, scale_of));
      for (int64_t i = 0; i < outputs.size(); ++i) {
        const double error = double{outputs.data()[i]} - reader.outputs.data()[i];
        loss += error * error;
      }
    }
    return loss;
  }

  template <typename ScaleOf>
  absl::StatusOr<Matrix> RoundedOutputs(DeviceView<const float> x, const Reader& reader,
                                        const ScaleOf& scale_of) const {
    const GridSpec grid{.bits = 8,
                        .group_size = 0,
                        .symmetric = true,
                        .search = request_.options.Flag(kScaleSearch.name)};
    Matrix scaled(reader.weight.rows(), reader.weight.cols());
    for (int64_t r = 0; r < scaled.rows(); ++r) {
      for (int64_t c = 0; c < scaled.cols(); ++c) {
        scaled.Row(r)[c] = reader.weight.Row(r)[c] * scale_of(c);
      }
    }
    LWQ_ASSIGN_OR_RETURN(const auto weight, Uploaded(scaled));
    LWQ_ASSIGN_OR_RETURN(const DeviceLinear rounded,
                         RoundToNearest(request_.device, weight->view(), grid, {}));
    LWQ_RETURN_IF_ERROR(request_.device->Dequantize(
        rounded.codes->view(), grid, rounded.scales->view(), rounded.zeros_view(), weight->view()));
    return Product(x, weight->view());
  }

  absl::StatusOr<std::unique_ptr<DeviceMatrix>> Uploaded(const Matrix& host) const {
    LWQ_ASSIGN_OR_RETURN(auto m, request_.device->NewMatrix(host.rows(), host.cols()));
    LWQ_RETURN_IF_ERROR(request_.device->Upload(host.view(), m->view()));
    return m;
  }

  absl::StatusOr<Matrix> Product(DeviceView<const float> x, DeviceView<const float> weight) const {
    LWQ_ASSIGN_OR_RETURN(const auto prepared,
                         request_.device->PrepareWeight(weight, ComputeType::kF32));
    LWQ_ASSIGN_OR_RETURN(const auto y, request_.device->NewMatrix(x.rows, weight.rows));
    LWQ_RETURN_IF_ERROR(request_.device->Linear(x, *prepared, y->view()));
    Matrix host(x.rows, weight.rows);
    LWQ_RETURN_IF_ERROR(request_.device->Download(y->view(), host.view()));
    return host;
  }
};

absl::StatusOr<LayerResult> QuantizeBySmoothQuant(const LayerRequest& request) {
  return SmoothQuantRun(request).Run();
}

}  // namespace

constinit const QuantizerDef quantizer_smoothquant = {
    .name = "smoothquant",
    .help =
        "moves the sizes of inputs' channels into the weights, for inputs of 8 bits, then rounds",
    .evidence = kEvidence,
    .options = kOptions,
    .quantize_layer = &QuantizeBySmoothQuant,
    .edits_tensors = true,
};

}  // namespace lwq

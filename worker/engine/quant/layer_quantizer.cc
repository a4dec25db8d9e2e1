#include "worker/engine/quant/layer_quantizer.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "worker/engine/evidence/input_evidence.h"
#include "worker/engine/format/fp8_row.h"
#include "worker/engine/format/gguf.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/format/row_tiles.h"
#include "worker/engine/quant/lookups.h"
#include "worker/engine/quant/rtn.h"

namespace lwq {

extern const QuantizerDef quantizer_rtn;

namespace {

// A linear in one of its unit's formats.
struct Product {
  size_t format;  // of WantedUnit::formats
  LinearRecord record;
  std::optional<QuantizedLinear> on_grid;
  std::string blocks;                    // of a GGUF type
  std::optional<EncodedLinear> encoded;  // of a format that leaves nothing to choose
};

absl::StatusOr<EncodedLinear> Encode(const LinearShape& linear, const WeightFormat& format,
                                     DType weight_dtype, Product& product) {
  if (product.on_grid.has_value()) {
    QuantizedLinear& one = *product.on_grid;
    const GridCodes codes{one.out_features, one.in_features, std::move(one.codes),
                          std::move(one.scales), std::move(one.zeros)};
    return format.grid()->Encode(linear.module, codes, weight_dtype);
  }
  if (product.encoded.has_value()) return *std::move(product.encoded);
  std::vector<PartSpec> parts = format.Parts(linear.out_features, linear.in_features, weight_dtype);
  EncodedLinear encoded;
  encoded.push_back({std::move(parts.front()), std::move(product.blocks)});
  return encoded;
}

// What became of the weights; `column_weight`: of the inputs, empty where they are not known.
LinearRecord RecordOf(ConstMatrixView weight, ConstMatrixView rounded,
                      const std::vector<float>& column_weight) {
  LinearRecord record;
  record.method = std::string(kRoundToNearest);
  double error = 0;
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t k = 0; k < weight.cols; ++k) {
      const double difference = double{rounded.Row(r)[k]} - weight.Row(r)[k];
      error += difference * difference;
      record.square += double{weight.Row(r)[k]} * weight.Row(r)[k];
      if (column_weight.empty()) continue;
      record.calibrated_error += column_weight[static_cast<size_t>(k)] * difference * difference;
    }
  }
  if (error > 0) record.relative_weight_error = error / record.square;
  return record;
}

// 8-bit floats to nearest, whatever the method: the steps grow with the numbers.
absl::Status AddFp8(Device* device, DeviceView<const float> weight,
                    const InputStatistics* statistics, DType weight_dtype,
                    const std::vector<const WeightFormat*>& formats,
                    std::vector<Product>& products) {
  for (size_t f = 0; f < formats.size(); ++f) {
    const Fp8RowFormat* format = formats[f]->fp8();
    if (format == nullptr) continue;
    Matrix host(weight.rows, weight.cols), rounded(weight.rows, weight.cols);
    LWQ_RETURN_IF_ERROR(device->Download(weight, host.view()));
    std::vector<float> column_weight;
    if (statistics != nullptr && statistics->factor() != nullptr) {
      column_weight.resize(static_cast<size_t>(weight.cols));
      LWQ_RETURN_IF_ERROR(
          device->Download(statistics->column_weights(), absl::MakeSpan(column_weight)));
    }
    Product product{.format = f, .encoded = format->Encode(host.view(), weight_dtype)};
    std::vector<TensorView> parts;
    for (const EncodedPart& part : *product.encoded) {
      const auto* bytes = reinterpret_cast<const uint8_t*>(part.bytes.data());
      parts.push_back({part.spec.dtype, part.spec.shape, {bytes, part.bytes.size()}});
    }
    LWQ_RETURN_IF_ERROR(format->Dequantize("a linear", parts, 0, rounded.view()));
    product.record = RecordOf(host.view(), rounded.view(), column_weight);
    products.push_back(std::move(product));
  }
  return absl::OkStatus();
}

// The linear in every format of its unit, by the method: grids first, then floats, then blocks.
absl::StatusOr<std::vector<Product>> MakeProducts(Device* device, const Quantizer& quantizer,
                                                  DeviceView<const float> weight,
                                                  const InputStatistics* statistics,
                                                  const std::vector<const WeightFormat*>& formats,
                                                  DType weight_dtype, bool scale_search) {
  std::vector<Product> products;
  std::vector<GridSpec> grids;
  for (size_t f = 0; f < formats.size(); ++f) {
    const GridFormat* grid = formats[f]->grid();
    if (grid == nullptr) continue;
    products.push_back({.format = f});
    grids.push_back({.bits = grid->bits(),
                     .group_size = grid->group_size(),
                     .symmetric = grid->symmetric(),
                     .search = scale_search});
  }
  if (!grids.empty()) {
    LWQ_ASSIGN_OR_RETURN(std::vector<QuantizedLinear> quantized,
                         quantizer.Quantize(device, weight, statistics, grids));
    for (size_t i = 0; i < quantized.size(); ++i) {
      products[i].record = quantized[i].record;
      products[i].on_grid = std::move(quantized[i]);
    }
  }
  LWQ_RETURN_IF_ERROR(AddFp8(device, weight, statistics, weight_dtype, formats, products));
  const size_t first_blocks = products.size();
  std::vector<const GgufTypeDef*> types;
  for (size_t f = 0; f < formats.size(); ++f) {
    const GgufFormat* format = formats[f]->gguf();
    if (format == nullptr) continue;
    products.push_back({.format = f});
    types.push_back(&format->type());
  }
  if (types.empty()) return products;
  const GgufFit fit = scale_search ? GgufFit::kSearch : GgufFit::kReference;
  LWQ_ASSIGN_OR_RETURN(std::vector<BlockLinear> blocks,
                       quantizer.QuantizeToBlocks(device, weight, statistics, types, fit));
  for (size_t i = 0; i < blocks.size(); ++i) {
    products[first_blocks + i].record = blocks[i].record;
    products[first_blocks + i].blocks = std::move(blocks[i].bytes);
  }
  return products;
}

absl::Status CheckFormats(const QuantizerDef& def, const LayerRequest& request) {
  for (const WantedUnit& wanted : request.units) {
    for (const WeightFormat* format : wanted.formats) {
      if (format->grid() != nullptr || format->gguf() != nullptr || format->fp8() != nullptr)
        continue;
      return Failure(reasons::kFormatUnsupported,
                     absl::StrCat("method ", def.name, " does not make ", format->id()));
    }
  }
  return absl::OkStatus();
}

// A linear that becomes every format of its unit, some rows at a time.
class TiledLinear {
 public:
  TiledLinear(const LayerRequest& request, const Quantizer& quantizer,
              const InputStatistics* statistics, const LinearShape& linear, size_t unit)
      : request_(request),
        quantizer_(quantizer),
        statistics_(statistics),
        linear_(linear),
        unit_(unit),
        formats_(request.units[unit].formats),
        rows_at_once_(TileRows(linear.out_features, linear.in_features, request.tile_weights)),
        encoded_(formats_.size()),
        records_(formats_.size()) {}

  // Adds all rows, tile by tile.
  absl::Status AddAll(const RowsLoader& load) {
    LWQ_ASSIGN_OR_RETURN(const auto tile,
                         request_.device->NewMatrix(rows_at_once_, linear_.in_features));
    for (int64_t first = 0; first < linear_.out_features; first += rows_at_once_) {
      const DeviceView<float> rows =
          tile->Rows(0, std::min(rows_at_once_, linear_.out_features - first));
      LWQ_RETURN_IF_ERROR(load(first, rows));
      LWQ_RETURN_IF_ERROR(AddRows(rows));
    }
    return absl::OkStatus();
  }

  absl::Status Finish(LayerResult& result) {
    for (size_t f : order_) {
      EncodedModule module{linear_.module, std::move(encoded_[f])};
      if (request_.keep) {
        LWQ_RETURN_IF_ERROR(request_.keep(unit_, f, std::move(module)));
      } else {
        result.encoded[unit_][f].push_back(std::move(module));
      }
      result.linears.push_back({unit_, f, linear_.module, std::move(records_[f])});
    }
    return absl::OkStatus();
  }

 private:
  absl::Status AddRows(DeviceView<const float> rows) {
    LWQ_ASSIGN_OR_ANNOTATE(
        std::vector<Product> products,
        MakeProducts(request_.device, quantizer_, rows, statistics_, formats_,
                     request_.model->weight_dtype, request_.options.Flag(kScaleSearch.name)),
        linear_.module);
    LinearShape shape = linear_;
    shape.out_features = rows.rows;
    // Formats side by side: packing codes is the host's work.
    std::vector<absl::StatusOr<EncodedLinear>> encoded(products.size());
    request_.device->host_threads().ParallelFor(
        static_cast<int64_t>(products.size()), [&](int64_t i) {
          Product& product = products[static_cast<size_t>(i)];
          encoded[static_cast<size_t>(i)] =
              Encode(shape, *formats_[product.format], request_.model->weight_dtype, product);
        });
    for (size_t i = 0; i < products.size(); ++i) {
      const size_t f = products[i].format;
      LWQ_RETURN_IF_ERROR(encoded[i].status());
      if (encoded_[f].empty()) {
        order_.push_back(f);
        records_[f] = std::move(products[i].record);
      } else {
        records_[f].AddRows(products[i].record);
      }
      AppendRows(*std::move(encoded[i]), rows.rows, linear_.out_features, encoded_[f]);
    }
    return absl::OkStatus();
  }

  const LayerRequest& request_;
  const Quantizer& quantizer_;
  const InputStatistics* const statistics_;
  const LinearShape& linear_;
  const size_t unit_;
  const std::vector<const WeightFormat*>& formats_;
  const int64_t rows_at_once_;
  std::vector<EncodedLinear> encoded_;  // by format, the rows so far
  std::vector<LinearRecord> records_;
  std::vector<size_t> order_;  // in which the formats were made
};

// The adapter: input by input, so that linears with one input share its statistics.
absl::StatusOr<LayerResult> QuantizeByLinear(const QuantizerDef& def, const LayerRequest& request) {
  const std::unique_ptr<Quantizer> quantizer = def.make(request.options);
  const std::unique_ptr<Quantizer> nearest = quantizer_rtn.make(request.options);
  const LayerSpec& layer = *request.layer;
  LayerResult result = EmptyResult(request);
  double done = 0;
  const double num_linears = static_cast<double>(layer.linears.size());
  for (size_t input = 0; input < layer.inputs.size(); ++input) {
    std::vector<const LinearShape*> linears;
    for (const LinearSpec& linear : layer.linears) {
      if (linear.input == input) linears.push_back(&linear.shape);
    }
    const bool wanted = std::any_of(linears.begin(), linears.end(), [&](const LinearShape* linear) {
      return FindWanted(request, linear->module) >= 0;
    });
    if (!wanted) continue;
    std::shared_ptr<const InputStatistics> statistics;
    InputEvidence fitted{&layer.inputs[input], 0, ""};
    if (def.needs_calibration()) {
      LWQ_ASSIGN_OR_RETURN(fitted, EvidenceFor(layer, layer.inputs[input], *request.evidence));
    }
    if (def.needs_calibration() && fitted.input != nullptr) {
      LWQ_ASSIGN_OR_RETURN(auto gram, request.evidence->Triangle(def.evidence[0], *fitted.input));
      const double lookups = request.looked_up ? request.options.Number(kLookupShare.name) : 0;
      if (lookups > 0) {
        LWQ_RETURN_IF_ERROR(AddLookups(request.device, lookups, gram->view()));
      }
      LWQ_ASSIGN_OR_ANNOTATE(
          statistics,
          quantizer->Prepare(request.device, std::move(gram), fitted.num_tokens, request.compute),
          linears[0]->module);
    }
    const Quantizer& by = fitted.input == nullptr ? *nearest : *quantizer;
    for (const LinearShape* linear : linears) {
      LWQ_RETURN_IF_ERROR(request.progress(done++ / num_linears, linear->module));
      const int unit = FindWanted(request, linear->module);
      if (unit < 0) continue;
      const size_t first = result.linears.size();
      const RowsLoader load = [&](int64_t row, DeviceView<float> rows) {
        return request.weights->LoadDense(absl::StrCat(linear->module, ".weight"), row,
                                          request.device, rows);
      };
      LWQ_RETURN_IF_ERROR(AddLinear(request, by, statistics.get(), *linear,
                                    static_cast<size_t>(unit), load, result));
      for (size_t i = first; i < result.linears.size() && !fitted.note.empty(); ++i) {
        result.linears[i].record.note = fitted.note;
      }
    }
  }
  return result;
}

}  // namespace

absl::StatusOr<LayerResult> QuantizeLayer(const QuantizerDef& def, const LayerRequest& request) {
  LWQ_RETURN_IF_ERROR(CheckFormats(def, request));
  return def.quantize_layer != nullptr ? def.quantize_layer(request)
                                       : QuantizeByLinear(def, request);
}

absl::Status AddLinear(const LayerRequest& request, const Quantizer& quantizer,
                       const InputStatistics* statistics, const LinearShape& linear, size_t unit,
                       const RowsLoader& load, LayerResult& result) {
  TiledLinear tiled(request, quantizer, statistics, linear, unit);
  LWQ_RETURN_IF_ERROR(tiled.AddAll(load));
  return tiled.Finish(result);
}

LayerResult EmptyResult(const LayerRequest& request) {
  LayerResult result;
  for (const WantedUnit& wanted : request.units) result.encoded.emplace_back(wanted.formats.size());
  return result;
}

int FindWanted(const LayerRequest& request, const std::string& module) {
  for (size_t u = 0; u < request.units.size(); ++u) {
    for (const LinearShape& linear : request.units[u].unit.linears) {
      if (linear.module == module) return static_cast<int>(u);
    }
  }
  return -1;
}

}  // namespace lwq

// Quantizes units of one layer in each wanted format. Linears that read the same input share its
// statistics, all formats of a linear share one factorisation.
#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "records/blob_names.h"
#include "records/plan_records.h"
#include "worker/engine/artifact/unit_blob.h"
#include "worker/engine/format/gguf.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/plan/artifact_format.h"
#include "worker/engine/quant/quantizer.h"
#include "worker/engine/quant/rtn.h"
#include "worker/runner/evidence_blobs.h"
#include "worker/runner/task_input.h"

namespace lwq {
namespace {

// Linears with one input.
struct InputGroup {
  InputSpec input;
  std::vector<LinearShape> linears;
};

std::vector<InputGroup> GroupsOf(const DecoderSpec& spec, Place place) {
  const LayerSpec& layer = spec.at(place);
  std::vector<InputGroup> groups;
  for (const InputSpec& input : layer.inputs) groups.push_back({input, {}});
  for (const LinearSpec& linear : layer.linears) {
    groups[linear.input].linears.push_back(linear.shape);
  }
  return groups;
}

v1::LinearReport ReportOf(const AllocationUnit& unit, const std::string& module,
                          const WeightFormat& format, const LinearRecord& record) {
  v1::LinearReport report;
  report.set_unit(unit.name);
  report.set_module(module);
  report.set_format(format.id());
  report.set_method(record.method);
  report.set_relative_weight_error(record.relative_weight_error);
  report.set_calibrated_error(record.calibrated_error);
  report.set_damping(record.damping);
  report.set_damping_retries(record.damping_retries);
  report.set_dead_columns(record.num_dead_columns);
  report.set_note(record.note);
  report.set_refinement_gain(record.refinement_gain);
  return report;
}

// One unit of the task: what it is to become, and what it has become so far.
struct UnitWork {
  AllocationUnit unit;
  std::vector<const WeightFormat*> formats;
  std::vector<std::vector<EncodedModule>> encoded;  // by format
};

absl::StatusOr<std::vector<UnitWork>> WorkOf(const v1::QuantizeTask& task,
                                             const ModelInventory& inventory) {
  std::vector<UnitWork> work;
  for (const v1::UnitFormats& wanted : task.units()) {
    UnitWork& one = work.emplace_back();
    LWQ_ASSIGN_OR_RETURN(one.unit, FindUnit(inventory, wanted.unit()));
    for (const std::string& id : wanted.formats()) {
      LWQ_ASSIGN_OR_RETURN(const WeightFormat* format, FindWeightFormat(id));
      if (format->grid() == nullptr && format->gguf() == nullptr) {
        return Failure(absl::StatusCode::kUnimplemented, "FORMAT_UNSUPPORTED",
                       absl::StrCat("method ", task.recipe().method(), " does not make ", id));
      }
      one.formats.push_back(format);
    }
    one.encoded.resize(one.formats.size());
  }
  return work;
}

UnitWork* FindWork(std::vector<UnitWork>& work, const std::string& module) {
  for (UnitWork& one : work) {
    for (const LinearShape& linear : one.unit.linears) {
      if (linear.module == module) return &one;
    }
  }
  return nullptr;
}

// A linear in one of its unit's formats, as its quantizer left it.
struct Product {
  size_t format;  // of UnitWork::formats
  LinearRecord record;
  std::optional<QuantizedLinear> on_grid;
  std::string blocks;  // where it is not on a grid
};

absl::StatusOr<EncodedLinear> Encode(const LinearShape& linear, const WeightFormat& format,
                                     DType weight_dtype, Product& product) {
  if (product.on_grid.has_value()) {
    QuantizedLinear& one = *product.on_grid;
    const GridCodes codes{one.out_features, one.in_features, std::move(one.codes),
                          std::move(one.scales), std::move(one.zeros)};
    return format.grid()->Encode(linear.module, codes, weight_dtype);
  }
  std::vector<PartSpec> parts = format.Parts(linear.out_features, linear.in_features, weight_dtype);
  EncodedLinear encoded;
  encoded.push_back({std::move(parts.front()), std::move(product.blocks)});
  return encoded;
}

// Encodes one linear's formats side by side, and reports them.
absl::Status AddLinear(Device* device, const LinearShape& linear, DType weight_dtype,
                       std::vector<Product> products, UnitWork& work, v1::LayerReport& report) {
  std::vector<absl::StatusOr<EncodedLinear>> encoded(products.size());
  device->host_threads().ParallelFor(static_cast<int64_t>(products.size()), [&](int64_t i) {
    Product& product = products[static_cast<size_t>(i)];
    encoded[static_cast<size_t>(i)] =
        Encode(linear, *work.formats[product.format], weight_dtype, product);
  });
  for (size_t i = 0; i < products.size(); ++i) {
    const size_t f = products[i].format;
    LWQ_RETURN_IF_ERROR(encoded[i].status());
    work.encoded[f].push_back({linear.module, *std::move(encoded[i])});
    *report.add_linears() =
        ReportOf(work.unit, linear.module, *work.formats[f], products[i].record);
  }
  return absl::OkStatus();
}

// The linear in every format of its unit, by the method: grids first, then blocks.
absl::StatusOr<std::vector<Product>> MakeProducts(Device* device, const Quantizer& quantizer,
                                                  DeviceView<const float> weight,
                                                  const InputStatistics* statistics,
                                                  const UnitWork& work, bool scale_search) {
  std::vector<Product> products;
  std::vector<GridSpec> grids;
  for (size_t f = 0; f < work.formats.size(); ++f) {
    const GridFormat* grid = work.formats[f]->grid();
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
  std::vector<const GgufTypeDef*> types;
  for (size_t f = 0; f < work.formats.size(); ++f) {
    const GgufFormat* format = work.formats[f]->gguf();
    if (format == nullptr) continue;
    products.push_back({.format = f});
    types.push_back(&format->type());
  }
  if (types.empty()) return products;
  const GgufFit fit = scale_search ? GgufFit::kSearch : GgufFit::kReference;
  LWQ_ASSIGN_OR_RETURN(std::vector<BlockLinear> blocks,
                       quantizer.QuantizeToBlocks(device, weight, statistics, types, fit));
  for (size_t i = 0; i < blocks.size(); ++i) {
    products[grids.size() + i].record = blocks[i].record;
    products[grids.size() + i].blocks = std::move(blocks[i].bytes);
  }
  return products;
}

// One blob per unit and format, side by side: hashing them takes as long as writing them.
absl::Status AddUnitBlobs(const TaskContext& context, const std::vector<UnitWork>& work,
                          v1::TaskOutput& output) {
  struct Blob {
    std::string name;
    const std::vector<EncodedModule>* linears;
  };
  std::vector<Blob> products;
  for (const UnitWork& unit : work) {
    for (size_t f = 0; f < unit.formats.size(); ++f) {
      products.push_back({UnitBlobName(unit.unit.name, unit.formats[f]->id()), &unit.encoded[f]});
    }
  }
  std::vector<absl::StatusOr<v1::BlobRef>> blobs(products.size());
  const auto store = [&](const Blob& product) -> absl::StatusOr<v1::BlobRef> {
    const std::string path = JoinPath(context.blobs->ScratchDirectory(), product.name);
    LWQ_RETURN_IF_ERROR(WriteUnitBlob(path, *product.linears));
    return context.blobs->Store(path);
  };
  context.device->host_threads().ParallelFor(static_cast<int64_t>(products.size()), [&](int64_t i) {
    blobs[static_cast<size_t>(i)] = store(products[static_cast<size_t>(i)]);
  });
  for (size_t i = 0; i < products.size(); ++i) {
    LWQ_ASSIGN_OR_RETURN(v1::BlobRef blob, std::move(blobs[i]));
    v1::NamedBlob* named = output.add_blobs();
    named->set_name(products[i].name);
    *named->mutable_blob() = std::move(blob);
  }
  return absl::OkStatus();
}

// The statistics of a group of linears with one input; null for methods without calibration.
absl::StatusOr<std::shared_ptr<const InputStatistics>> StatisticsFor(const TaskContext& context,
                                                                     const v1::QuantizeTask& task,
                                                                     const InputGroup& group,
                                                                     bool needs_calibration) {
  if (!needs_calibration) return nullptr;
  const v1::Recipe& recipe = task.recipe();
  const auto evidence = OpenEvidence(&context, PlaceOfRecord(task.layer()));
  LWQ_ASSIGN_OR_RETURN(auto gram, evidence->Triangle("second-moments", group.input));
  InputStatistics::Options options;
  options.damping = recipe.damping();
  options.act_order = recipe.act_order();
  options.refinement = recipe.refinement();
  LWQ_ASSIGN_OR_RETURN(options.compute, ParseComputeType(recipe.compute()));
  LWQ_ASSIGN_OR_ANNOTATE(
      auto statistics,
      InputStatistics::Create(context.device, std::move(gram), evidence->num_tokens(), options),
      group.linears[0].module);
  return statistics;
}

}  // namespace

absl::StatusOr<v1::TaskOutput> RunQuantize(const TaskContext& context,
                                           const v1::QuantizeTask& task) {
  LWQ_ASSIGN_OR_RETURN(OpenedModel model, OpenModel(task.model()));
  LWQ_ASSIGN_OR_RETURN(const QuantizerDef* def, FindQuantizer(task.recipe().method()));
  const Place place = PlaceOfRecord(task.layer());
  // A table that is only looked up has no inputs to be fitted to.
  if (model.spec.OnlyLookedUp(place)) {
    LWQ_ASSIGN_OR_RETURN(def, FindQuantizer(kRoundToNearest));
  }
  const std::unique_ptr<Quantizer> quantizer = def->make();
  LWQ_ASSIGN_OR_RETURN(std::vector<UnitWork> work, WorkOf(task, model.inventory));

  Device* device = context.device;
  v1::TaskOutput output;
  v1::LayerReport& report = *output.mutable_quantize()->mutable_report();
  report.set_layer(task.layer());
  if (place.in_layer() && place.layer >= model.spec.num_layers()) {
    return absl::InvalidArgumentError(
        absl::StrCat("quantizing layer ", place.layer, " of a model of ", model.spec.num_layers()));
  }
  const std::vector<InputGroup> groups = GroupsOf(model.spec, place);
  double done = 0, num_linears = 0;
  for (const InputGroup& group : groups) num_linears += static_cast<double>(group.linears.size());
  for (const InputGroup& group : groups) {
    const bool wanted = std::any_of(
        group.linears.begin(), group.linears.end(),
        [&](const LinearShape& linear) { return FindWork(work, linear.module) != nullptr; });
    if (!wanted) continue;
    LWQ_ASSIGN_OR_RETURN(const auto statistics,
                         StatisticsFor(context, task, group, def->needs_calibration()));
    for (const LinearShape& linear : group.linears) {
      LWQ_RETURN_IF_ERROR(context.progress(done++ / num_linears, linear.module));
      UnitWork* unit = FindWork(work, linear.module);
      if (unit == nullptr) continue;
      LWQ_ASSIGN_OR_RETURN(auto weight, device->NewMatrix(linear.out_features, linear.in_features));
      LWQ_RETURN_IF_ERROR(model.weights->LoadLinear(linear.module, device, weight->view()));
      LWQ_ASSIGN_OR_ANNOTATE(std::vector<Product> products,
                             MakeProducts(device, *quantizer, weight->view(), statistics.get(),
                                          *unit, task.recipe().scale_search()),
                             linear.module);
      LWQ_RETURN_IF_ERROR(AddLinear(device, linear, model.inventory.weight_dtype,
                                    std::move(products), *unit, report));
    }
  }
  LWQ_RETURN_IF_ERROR(AddUnitBlobs(context, work, output));
  return output;
}

}  // namespace lwq

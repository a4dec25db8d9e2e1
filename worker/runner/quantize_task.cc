// Quantizes units of one layer in each wanted format. Linears that read the same input share its
// statistics, all formats of a linear share one factorisation.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "records/blob_names.h"
#include "worker/engine/artifact/unit_blob.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/quant/quantizer.h"
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
  const AllocationUnit* unit = nullptr;
  std::vector<const WeightFormat*> formats;
  std::vector<std::vector<EncodedModule>> encoded;  // by format
};

absl::StatusOr<std::vector<UnitWork>> WorkOf(const v1::QuantizeTask& task,
                                             const ModelInventory& inventory) {
  std::vector<UnitWork> work;
  for (const v1::UnitFormats& wanted : task.units()) {
    const auto unit =
        std::find_if(inventory.units.begin(), inventory.units.end(),
                     [&](const AllocationUnit& u) { return u.name == wanted.unit(); });
    if (unit == inventory.units.end()) {
      return InvalidFailure("PLAN_MISMATCH", absl::StrCat("the model has no unit ", wanted.unit()));
    }
    UnitWork& one = work.emplace_back();
    one.unit = &*unit;
    for (const std::string& id : wanted.formats()) {
      LWQ_ASSIGN_OR_RETURN(const WeightFormat* format, FindWeightFormat(id));
      if (format->grid() == nullptr) {
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
    for (const LinearShape& linear : one.unit->linears) {
      if (linear.module == module) return &one;
    }
  }
  return nullptr;
}

// Encodes one linear's formats side by side, and reports them.
absl::Status AddLinear(Device* device, const std::string& module, DType weight_dtype,
                       std::vector<QuantizedLinear> quantized, UnitWork& work,
                       v1::LayerReport& report) {
  std::vector<absl::StatusOr<EncodedLinear>> encoded(quantized.size());
  device->host_threads().ParallelFor(static_cast<int64_t>(quantized.size()), [&](int64_t i) {
    const size_t f = static_cast<size_t>(i);
    QuantizedLinear& one = quantized[f];
    const GridCodes codes{one.out_features, one.in_features, std::move(one.codes),
                          std::move(one.scales), std::move(one.zeros)};
    encoded[f] = work.formats[f]->grid()->Encode(module, codes, weight_dtype);
  });
  for (size_t f = 0; f < quantized.size(); ++f) {
    LWQ_RETURN_IF_ERROR(encoded[f].status());
    work.encoded[f].push_back({module, *std::move(encoded[f])});
    *report.add_linears() = ReportOf(*work.unit, module, *work.formats[f], quantized[f].record);
  }
  return absl::OkStatus();
}

// One blob per unit and format, side by side: hashing them takes as long as writing them.
absl::Status AddUnitBlobs(const TaskContext& context, const std::vector<UnitWork>& work,
                          v1::TaskOutput& output) {
  struct Product {
    std::string name;
    const std::vector<EncodedModule>* linears;
  };
  std::vector<Product> products;
  for (const UnitWork& unit : work) {
    for (size_t f = 0; f < unit.formats.size(); ++f) {
      products.push_back({UnitBlobName(unit.unit->name, unit.formats[f]->id()), &unit.encoded[f]});
    }
  }
  std::vector<absl::StatusOr<v1::BlobRef>> blobs(products.size());
  const auto store = [&](const Product& product) -> absl::StatusOr<v1::BlobRef> {
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
  const auto evidence = OpenEvidence(&context, PlaceOfTask(task.layer()));
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
  const std::unique_ptr<Quantizer> quantizer = def->make();
  LWQ_ASSIGN_OR_RETURN(std::vector<UnitWork> work, WorkOf(task, model.inventory));

  Device* device = context.device;
  v1::TaskOutput output;
  v1::LayerReport& report = *output.mutable_quantize()->mutable_report();
  report.set_layer(task.layer());
  const Place place = PlaceOfTask(task.layer());
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
      std::vector<GridSpec> grids;
      for (const WeightFormat* format : unit->formats) {
        grids.push_back({.bits = format->grid()->bits(),
                         .group_size = format->grid()->group_size(),
                         .symmetric = format->grid()->symmetric(),
                         .search = task.recipe().scale_search()});
      }
      LWQ_ASSIGN_OR_ANNOTATE(std::vector<QuantizedLinear> quantized,
                             quantizer->Quantize(device, weight->view(), statistics.get(), grids),
                             linear.module);
      LWQ_RETURN_IF_ERROR(AddLinear(device, linear.module, model.inventory.weight_dtype,
                                    std::move(quantized), *unit, report));
    }
  }
  LWQ_RETURN_IF_ERROR(AddUnitBlobs(context, work, output));
  return output;
}

}  // namespace lwq

// Quantizes units of one layer in each wanted format: what the lease says as the method's request, and
// what the method made as blobs and a report.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "records/blob_names.h"
#include "records/option_records.h"
#include "records/plan_records.h"
#include "worker/engine/artifact/edits_blob.h"
#include "worker/engine/artifact/unit_blob.h"
#include "worker/engine/plan/artifact_format.h"
#include "worker/engine/quant/layer_quantizer.h"
#include "worker/engine/quant/rtn.h"
#include "worker/runner/evidence_blobs.h"
#include "worker/runner/task_input.h"

namespace lwq {
namespace {

void AddReport(const LayerRequest& request, const QuantizedModule& linear,
               v1::LayerReport& layer) {
  const WantedUnit& wanted = request.units[linear.unit];
  const LinearRecord& record = linear.record;
  v1::LinearReport& report = *layer.add_linears();
  report.set_unit(wanted.unit.name);
  report.set_module(linear.module);
  report.set_format(wanted.formats[linear.format]->id());
  report.set_method(record.method);
  report.set_relative_weight_error(record.relative_weight_error);
  report.set_calibrated_error(record.calibrated_error);
  report.set_damping(record.damping);
  report.set_damping_retries(record.damping_retries);
  report.set_dead_columns(record.num_dead_columns);
  report.set_note(record.note);
  report.set_refinement_gain(record.refinement_gain);
}

absl::StatusOr<std::vector<WantedUnit>> WantedUnits(const v1::QuantizeTask& task,
                                                    const ModelInventory& inventory) {
  std::vector<WantedUnit> units;
  for (const v1::UnitFormats& wanted : task.units()) {
    WantedUnit& unit = units.emplace_back();
    LWQ_ASSIGN_OR_RETURN(unit.unit, FindUnit(inventory, wanted.unit()));
    for (const std::string& id : wanted.formats()) {
      LWQ_ASSIGN_OR_RETURN(unit.formats.emplace_back(), FindWeightFormat(id));
    }
  }
  return units;
}

// One blob per unit and format, side by side: hashing them takes as long as writing them.
absl::Status AddUnitBlobs(const TaskContext& context, const LayerRequest& request,
                          const LayerResult& result, v1::TaskOutput& output) {
  struct Blob {
    std::string name;
    const std::vector<EncodedModule>* linears;
  };
  std::vector<Blob> products;
  for (size_t u = 0; u < request.units.size(); ++u) {
    const WantedUnit& wanted = request.units[u];
    for (size_t f = 0; f < wanted.formats.size(); ++f) {
      products.push_back(
          {UnitBlobName(wanted.unit.name, wanted.formats[f]->id()), &result.encoded[u][f]});
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

// The method's options in the recipe, of those that `def` declares: what stands in for a method knows
// fewer.
absl::StatusOr<OptionValues> OptionsFor(const QuantizerDef& def, const v1::Recipe& recipe) {
  OptionTexts known;
  for (const OptionDef& option : def.options) {
    const auto given = recipe.options().find(std::string(option.name));
    if (given != recipe.options().end()) known.insert({given->first, given->second});
  }
  return OptionValues::Make(absl::StrCat("method ", def.name), def.options, known);
}

}  // namespace

absl::StatusOr<v1::TaskOutput> RunQuantize(const TaskContext& context,
                                           const v1::QuantizeTask& task) {
  LWQ_ASSIGN_OR_RETURN(OpenedModel model, OpenModel(task.model()));
  LWQ_ASSIGN_OR_RETURN(const QuantizerDef* def, FindQuantizer(task.recipe().method()));
  const Place place = PlaceOfRecord(task.layer());
  if (place.in_layer() && place.layer >= model.spec.num_layers()) {
    return absl::InvalidArgumentError(
        absl::StrCat("quantizing layer ", place.layer, " of a model of ", model.spec.num_layers()));
  }
  // A table that is only looked up has no inputs to be fitted to.
  if (model.spec.OnlyLookedUp(place)) {
    LWQ_ASSIGN_OR_RETURN(def, FindQuantizer(kRoundToNearest));
  }
  const auto evidence = OpenEvidence(&context, place);
  LayerRequest request;
  request.device = context.device;
  request.layer = &model.spec.at(place);
  request.in_layer = place.in_layer();
  request.norm_offset = model.spec.norm_offset;
  request.model = &model.inventory;
  request.weights = model.weights.get();
  request.evidence = evidence.get();
  LWQ_ASSIGN_OR_RETURN(request.units, WantedUnits(task, model.inventory));
  LWQ_ASSIGN_OR_RETURN(request.options, OptionsFor(*def, task.recipe()));
  LWQ_ASSIGN_OR_RETURN(request.compute, ParseComputeType(task.recipe().compute()));
  request.progress = context.progress;
  LWQ_ASSIGN_OR_RETURN(const LayerResult result, QuantizeLayer(*def, request));

  v1::TaskOutput output;
  v1::LayerReport& report = *output.mutable_quantize()->mutable_report();
  report.set_layer(task.layer());
  for (const QuantizedModule& linear : result.linears) AddReport(request, linear, report);
  LWQ_RETURN_IF_ERROR(AddUnitBlobs(context, request, result, output));
  if (task.edits()) {
    const std::string name = EditsBlobName(task.layer());
    const std::string path = JoinPath(context.blobs->ScratchDirectory(), name);
    LWQ_RETURN_IF_ERROR(WriteEditsBlob(path, result.edits));
    LWQ_RETURN_IF_ERROR(AddBlob(context, name, path, output));
  }
  return output;
}

}  // namespace lwq

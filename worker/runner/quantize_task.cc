// Quantizes units of one layer in each wanted format: what the lease says as the method's request,
// and what the method made as blobs and a report.
#include <memory>
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

void AddReport(const LayerRequest& request, const QuantizedModule& linear, v1::LayerReport& layer) {
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

// What the linears of a task's units became, until they are blobs, one per unit and format: in
// memory, and of a layer's experts in files.
class Products {
 public:
  static absl::StatusOr<Products> Create(const TaskContext& context, const LayerRequest& request) {
    Products products;
    for (const WantedUnit& wanted : request.units) {
      std::vector<Product>& formats = products.products_.emplace_back();
      for (const WeightFormat* format : wanted.formats) {
        Product& product = formats.emplace_back();
        product.name = UnitBlobName(wanted.unit.name, format->id());
        product.path = JoinPath(context.blobs->ScratchDirectory(), product.name);
        if (!wanted.unit.of_experts()) continue;
        LWQ_ASSIGN_OR_RETURN(product.spool, UnitBlobSpool::Create(product.path));
      }
    }
    return products;
  }

  absl::Status Keep(size_t unit, size_t format, EncodedModule module) {
    Product& product = products_[unit][format];
    if (product.spool != nullptr) return product.spool->Add(module);
    product.linears.push_back(std::move(module));
    return absl::OkStatus();
  }

  // Side by side: hashing them takes as long as writing them.
  absl::Status AddBlobs(const TaskContext& context, v1::TaskOutput& output) const {
    std::vector<const Product*> all;
    for (const std::vector<Product>& formats : products_) {
      for (const Product& product : formats) all.push_back(&product);
    }
    std::vector<absl::StatusOr<v1::BlobRef>> blobs(all.size());
    context.device->host_threads().ParallelFor(static_cast<int64_t>(all.size()), [&](int64_t i) {
      blobs[static_cast<size_t>(i)] = Store(context, *all[static_cast<size_t>(i)]);
    });
    for (size_t i = 0; i < all.size(); ++i) {
      LWQ_ASSIGN_OR_RETURN(v1::BlobRef blob, std::move(blobs[i]));
      v1::NamedBlob* named = output.add_blobs();
      named->set_name(all[i]->name);
      *named->mutable_blob() = std::move(blob);
    }
    return absl::OkStatus();
  }

 private:
  struct Product {
    std::string name, path;
    std::vector<EncodedModule> linears;
    std::unique_ptr<UnitBlobSpool> spool;  // null: in `linears`
  };

  static absl::StatusOr<v1::BlobRef> Store(const TaskContext& context, const Product& product) {
    LWQ_ASSIGN_OR_RETURN(const std::string digest,
                         product.spool != nullptr ? product.spool->Finish()
                                                  : WriteUnitBlob(product.path, product.linears));
    return context.blobs->Store(product.path, digest);
  }

  std::vector<std::vector<Product>> products_;  // by unit and format
};

// The method's options in the recipe, of those that `def` declares: what stands in for a method
// knows fewer.
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
  request.looked_up = place == Place::Embedding() && model.spec.head.tied;
  request.norm_offset = model.spec.norm_offset;
  request.model = &model.inventory;
  request.weights = model.weights.get();
  request.evidence = evidence.get();
  LWQ_ASSIGN_OR_RETURN(request.units, WantedUnits(task, model.inventory));
  LWQ_ASSIGN_OR_RETURN(request.options, OptionsFor(*def, task.recipe()));
  LWQ_ASSIGN_OR_RETURN(request.compute, ParseComputeType(task.recipe().compute()));
  if (task.tile_weights() > 0) request.tile_weights = task.tile_weights();
  request.progress = context.progress;
  LWQ_ASSIGN_OR_RETURN(Products products, Products::Create(context, request));
  request.keep = [&products](size_t unit, size_t format, EncodedModule module) {
    return products.Keep(unit, format, std::move(module));
  };
  LWQ_ASSIGN_OR_RETURN(const LayerResult result, QuantizeLayer(*def, request));

  v1::TaskOutput output;
  v1::LayerReport& report = *output.mutable_quantize()->mutable_report();
  report.set_layer(task.layer());
  for (const QuantizedModule& linear : result.linears) AddReport(request, linear, report);
  LWQ_RETURN_IF_ERROR(products.AddBlobs(context, output));
  if (task.edits()) {
    const std::string name = EditsBlobName(task.layer());
    const std::string path = JoinPath(context.blobs->ScratchDirectory(), name);
    LWQ_ASSIGN_OR_RETURN(const std::string digest, WriteEditsBlob(path, result.edits));
    LWQ_RETURN_IF_ERROR(AddBlob(context, name, path, output, digest));
  }
  return output;
}

}  // namespace lwq

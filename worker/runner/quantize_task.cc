// Quantizes every linear of one layer at each wanted width. Linears that read the same input share
// its statistics, all widths of a linear share one factorisation.
#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "worker/engine/artifact/layer_blob.h"
#include "worker/engine/quant/quantizer.h"
#include "worker/runner/task_input.h"

namespace lwq {
namespace {

// Linears with one input, and the name of the blob with its second moments.
struct InputGroup {
  std::string gram_blob;
  std::vector<LinearShape> linears;
};

std::vector<InputGroup> GroupsOf(const OpenedModel& model, int layer) {
  if (layer < 0) return {{HeadGramBlobName(), model.inventory.units.back().linears}};
  std::vector<InputGroup> groups(kNumLinearInputs);
  for (int i = 0; i < kNumLinearRoles; ++i) {
    const LinearRole role = static_cast<LinearRole>(i);
    InputGroup& group = groups[static_cast<int>(InputOf(role))];
    group.gram_blob = GramBlobName(layer, InputOf(role));
    group.linears.push_back({model.spec.ModuleName(layer, role), model.spec.OutFeatures(role),
                             model.spec.InFeatures(role)});
  }
  return groups;
}

// Reads the packed lower triangle that calibrate_task.cc wrote.
absl::StatusOr<std::unique_ptr<DeviceMatrix>> ReadGram(const TaskContext& context,
                                                       const std::string& blob_name, int64_t size) {
  LWQ_ASSIGN_OR_RETURN(std::string path, FetchInputBlob(context, "calibrate", blob_name));
  LWQ_ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
  if (static_cast<int64_t>(file->bytes().size()) != size * (size + 1) / 2 * 4) {
    return CorruptFailure("BLOB_CORRUPT", absl::StrCat(blob_name, " has ", file->bytes().size(),
                                                       " bytes, expected a triangle of ", size));
  }
  LWQ_ASSIGN_OR_RETURN(auto gram, context.device->NewMatrix(size, size));
  LWQ_RETURN_IF_ERROR(context.device->FillZero(gram->view()));
  Matrix row(1, size);
  const uint8_t* source = file->bytes().data();
  for (int64_t r = 0; r < size; ++r) {
    std::memcpy(row.data(), source, static_cast<size_t>(r + 1) * sizeof(float));
    source += (r + 1) * sizeof(float);
    LWQ_RETURN_IF_ERROR(
        context.device->Upload(row.view().Cols(0, r + 1), gram->Rows(r, 1).Cols(0, r + 1)));
  }
  return gram;
}

v1::LinearReport ReportOf(const std::string& module, const QuantizedLinear& linear) {
  v1::LinearReport report;
  report.set_module(module);
  report.set_bits(linear.grid.bits);
  report.set_method(linear.record.method);
  report.set_relative_weight_error(linear.record.relative_weight_error);
  report.set_calibrated_error(linear.record.calibrated_error);
  report.set_damping(linear.record.damping);
  report.set_damping_retries(linear.record.damping_retries);
  report.set_dead_columns(linear.record.num_dead_columns);
  report.set_note(linear.record.note);
  report.set_refinement_gain(linear.record.refinement_gain);
  return report;
}

using LinearsByWidth = std::map<int, std::vector<PackedLinear>>;

// Packs one linear's widths side by side, and reports them.
absl::Status AddLinear(Device* device, const std::string& module, DType weight_dtype,
                       const std::vector<QuantizedLinear>& quantized, LinearsByWidth& packed,
                       v1::LayerReport& report) {
  std::vector<absl::StatusOr<PackedLinear>> stored(quantized.size());
  device->host_threads().ParallelFor(static_cast<int64_t>(quantized.size()), [&](int64_t i) {
    const size_t w = static_cast<size_t>(i);
    stored[w] = PackLinear(module, quantized[w], weight_dtype);
  });
  for (size_t w = 0; w < quantized.size(); ++w) {
    LWQ_RETURN_IF_ERROR(stored[w].status());
    packed[quantized[w].grid.bits].push_back(*std::move(stored[w]));
    *report.add_linears() = ReportOf(module, quantized[w]);
  }
  return absl::OkStatus();
}

// One blob a width, side by side: hashing them takes as long as writing them.
absl::Status AddLayerBlobs(const TaskContext& context, int layer, const LinearsByWidth& packed,
                           v1::TaskOutput& output) {
  std::vector<const LinearsByWidth::value_type*> widths;
  for (const auto& width : packed) widths.push_back(&width);
  std::vector<absl::StatusOr<v1::BlobRef>> blobs(widths.size());
  const auto store = [&](size_t i) -> absl::StatusOr<v1::BlobRef> {
    const auto& [bits, linears] = *widths[i];
    const std::string path =
        JoinPath(context.blobs->ScratchDirectory(), LayerBlobName(layer, bits));
    LWQ_RETURN_IF_ERROR(WriteLayerBlob(path, linears));
    return context.blobs->Store(path);
  };
  context.device->host_threads().ParallelFor(static_cast<int64_t>(widths.size()), [&](int64_t i) {
    blobs[static_cast<size_t>(i)] = store(static_cast<size_t>(i));
  });
  for (size_t i = 0; i < widths.size(); ++i) {
    LWQ_ASSIGN_OR_RETURN(v1::BlobRef blob, std::move(blobs[i]));
    v1::NamedBlob* named = output.add_blobs();
    named->set_name(LayerBlobName(layer, widths[i]->first));
    *named->mutable_blob() = std::move(blob);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::TaskOutput> RunQuantize(const TaskContext& context,
                                           const v1::QuantizeTask& task) {
  LWQ_ASSIGN_OR_RETURN(OpenedModel model, OpenModel(task.model()));
  LWQ_ASSIGN_OR_RETURN(const QuantizerDef* def, FindQuantizer(task.recipe().method()));
  const std::unique_ptr<Quantizer> quantizer = def->make();
  const v1::Recipe& recipe = task.recipe();
  LWQ_ASSIGN_OR_RETURN(ComputeType compute, ParseComputeType(recipe.compute()));
  std::vector<GridSpec> grids;
  for (int bits : task.bits()) {
    grids.push_back({.bits = bits,
                     .group_size = recipe.group_size(),
                     .symmetric = !recipe.asymmetric(),
                     .search = recipe.scale_search()});
  }

  Device* device = context.device;
  v1::TaskOutput output;
  v1::LayerReport& report = *output.mutable_quantize()->mutable_report();
  report.set_layer(task.layer());
  LinearsByWidth packed;

  const std::vector<InputGroup> groups = GroupsOf(model, task.layer());
  double done = 0;
  for (const InputGroup& group : groups) {
    std::shared_ptr<const InputStatistics> statistics;
    if (def->needs_calibration) {
      LWQ_ASSIGN_OR_RETURN(auto gram,
                           ReadGram(context, group.gram_blob, group.linears[0].in_features));
      InputStatistics::Options options;
      options.damping = recipe.damping();
      options.act_order = recipe.act_order();
      options.refinement = recipe.refinement();
      options.compute = compute;
      LWQ_ASSIGN_OR_ANNOTATE(statistics,
                             InputStatistics::Create(device, std::move(gram),
                                                     task.calibration().num_tokens(), options),
                             group.linears[0].module);
    }
    for (const LinearShape& linear : group.linears) {
      LWQ_RETURN_IF_ERROR(context.progress(done / kNumLinearRoles, linear.module));
      LWQ_ASSIGN_OR_RETURN(auto weight, device->NewMatrix(linear.out_features, linear.in_features));
      {
        Matrix host(linear.out_features, linear.in_features);
        LWQ_RETURN_IF_ERROR(model.weights->ReadLinear(linear.module, host.view()));
        LWQ_RETURN_IF_ERROR(device->Upload(host.view(), weight->view()));
      }
      LWQ_ASSIGN_OR_ANNOTATE(std::vector<QuantizedLinear> quantized,
                             quantizer->Quantize(device, weight->view(), statistics.get(), grids),
                             linear.module);
      LWQ_RETURN_IF_ERROR(AddLinear(device, linear.module, model.inventory.weight_dtype, quantized,
                                    packed, report));
      done += 1;
    }
  }

  LWQ_RETURN_IF_ERROR(AddLayerBlobs(context, task.layer(), packed, output));
  return output;
}

}  // namespace lwq

// A tiny model, its unit blobs and a mixed plan for it, made in a temporary directory.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "tests/testing/tiny_model.h"
#include "tests/worker/engine/artifact/simple_quantizer.h"
#include "worker/engine/artifact/artifact_writer.h"
#include "worker/engine/format/fp8_row.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/weight_source.h"

namespace lwq::testing {

// Formats that go round over the units: every layer has several, and some units stay dense.
inline Plan MixedPlan(const ModelInventory& model) {
  const WeightFormat* const cycle[] = {
      GridFormat::Find(3, 64, true), GridFormat::Find(2, 128, true), DenseFormat(),
      GridFormat::Find(8, 0, true),  GridFormat::Find(4, 32, true),  GridFormat::Find(4, 64, false),
      GridFormat::Find(3, 0, false)};
  Plan plan;
  for (size_t i = 0; i < model.units.size(); ++i) plan.push_back(cycle[i % std::size(cycle)]);
  if (!model.units.empty() && model.units.back().place == Place::Head()) {
    plan.back() = GridFormat::Find(8, 128, true);
  }
  return plan;
}

// Formats that are multiplied in 8 bits, one that is not, and dense.
inline Plan EightBitPlan(const ModelInventory& model) {
  const WeightFormat* const cycle[] = {GridFormat::WithRoundedInputs(), Fp8RowFormat::Find(),
                                       DenseFormat(), GridFormat::WithRoundedInputs(),
                                       GridFormat::Find(8, 0, true)};
  Plan plan;
  for (size_t i = 0; i < model.units.size(); ++i) plan.push_back(cycle[i % std::size(cycle)]);
  return plan;
}

inline GridSpec SpecOf(const GridFormat& format) {
  return {format.bits(), format.group_size(), format.symmetric(), false};
}
inline GridCodes CodesOf(const QuantizedLinear& linear) {
  GridCodes codes;
  codes.out_features = linear.out_features;
  codes.in_features = linear.in_features;
  codes.codes = linear.codes;
  const auto copy = [](const Matrix& from) {
    Matrix to(from.rows(), from.cols());
    std::copy_n(from.data(), from.size(), to.data());
    return to;
  };
  codes.scales = copy(linear.scales);
  if (linear.zeros.size() > 0) codes.zeros = copy(linear.zeros);
  return codes;
}

struct MadeArtifact {
  std::unique_ptr<TempDirectory> scratch;
  std::unique_ptr<Checkpoint> source;
  ModelInventory model;
  Plan plan;
  std::vector<std::unique_ptr<UnitBlob>> blobs;
  BlobSet blob_set;
  std::map<std::string, QuantizedLinear> linears;

  ArtifactPlan Parts(int64_t max_shard_bytes = 0) const {
    return {&model, &plan, source.get(), &blob_set, max_shard_bytes};
  }
  std::string Directory(const std::string& name) const { return JoinPath(scratch->path(), name); }
};

// Quantizes every unit as the plan says, into a blob of its own.
inline absl::Status MakeBlobs(MadeArtifact* made) {
  const auto weights = MakeCheckpointWeights(made->source.get());
  for (size_t i = 0; i < made->model.units.size(); ++i) {
    const AllocationUnit& unit = made->model.units[i];
    const WeightFormat* format = made->plan[i];
    if (format == nullptr || format->dense()) continue;
    std::vector<EncodedModule> encoded;
    for (const LinearShape& shape : unit.linears) {
      Matrix weight(shape.out_features, shape.in_features);
      LWQ_RETURN_IF_ERROR(weights->ReadLinear(shape.module, weight.view()));
      if (format->fp8() != nullptr) {
        encoded.push_back(
            {shape.module, format->fp8()->Encode(weight.view(), made->model.weight_dtype)});
        continue;
      }
      const GridFormat& grid = *format->grid();
      QuantizedLinear linear = QuantizeSimply(weight.view(), SpecOf(grid));
      LWQ_ASSIGN_OR_RETURN(EncodedLinear stored,
                           grid.Encode(shape.module, CodesOf(linear), made->model.weight_dtype));
      encoded.push_back({shape.module, std::move(stored)});
      made->linears[shape.module] = std::move(linear);
    }
    const std::string path = made->Directory(absl::StrCat("blob-", made->blobs.size()));
    LWQ_RETURN_IF_ERROR(WriteUnitBlob(path, encoded).status());
    LWQ_ASSIGN_OR_RETURN(std::unique_ptr<UnitBlob> blob, UnitBlob::Open(path, unit, format));
    made->blob_set.Add(blob.get());
    made->blobs.push_back(std::move(blob));
  }
  return absl::OkStatus();
}

inline absl::StatusOr<MadeArtifact> MakeMixed(
    const std::string& model_directory, std::unique_ptr<TempDirectory> scratch,
    Plan (*plan_of)(const ModelInventory& model) = &MixedPlan) {
  MadeArtifact made;
  made.scratch = std::move(scratch);
  LWQ_ASSIGN_OR_RETURN(made.source, Checkpoint::Open(model_directory));
  LWQ_ASSIGN_OR_RETURN(const DecoderSpec spec, ReadDecoderSpec(model_directory));
  LWQ_ASSIGN_OR_RETURN(made.model, TakeInventory(spec, *made.source));
  made.plan = plan_of(made.model);
  LWQ_RETURN_IF_ERROR(MakeBlobs(&made));
  return made;
}

inline absl::StatusOr<MadeArtifact> MakeMixedTiny(
    const TinyModelOptions& options, Plan (*plan_of)(const ModelInventory& model) = &MixedPlan) {
  LWQ_ASSIGN_OR_RETURN(TempDirectory scratch, TempDirectory::Create());
  const std::string model_directory = JoinPath(scratch.path(), "model");
  LWQ_RETURN_IF_ERROR(WriteTinyModel(options, model_directory));
  return MakeMixed(model_directory, std::make_unique<TempDirectory>(std::move(scratch)), plan_of);
}

}  // namespace lwq::testing

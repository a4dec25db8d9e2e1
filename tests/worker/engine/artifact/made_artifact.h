// A tiny model, its layer blobs and a mixed plan for it, made in a temporary directory.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "tests/testing/tiny_model.h"
#include "tests/worker/engine/artifact/simple_quantizer.h"
#include "worker/engine/artifact/artifact_writer.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/weight_source.h"

namespace lwq::testing {

// Widths that go round over the units: every layer has several, and some units stay dense.
inline std::vector<UnitFormat> MixedFormats(const ModelInventory& model) {
  const UnitFormat cycle[] = {{3, 64, true}, {2, 128, true}, {},           {8, 0, true},
                              {4, 32, true}, {4, 64, false}, {3, 0, false}};
  std::vector<UnitFormat> formats;
  for (size_t i = 0; i < model.units.size(); ++i) formats.push_back(cycle[i % std::size(cycle)]);
  if (!model.units.empty() && model.units.back().layer < 0) formats.back() = {8, 128, true};
  return formats;
}

struct MadeArtifact {
  std::unique_ptr<TempDirectory> scratch;
  std::unique_ptr<Checkpoint> source;
  ModelInventory model;
  std::vector<UnitFormat> formats;
  std::vector<std::unique_ptr<LayerBlob>> blobs;
  BlobSet blob_set;
  std::map<std::string, QuantizedLinear> linears;

  ArtifactPlan Plan(int64_t max_shard_bytes = 0) const {
    return {&model, &formats, source.get(), &blob_set, max_shard_bytes};
  }
  std::string Directory(const std::string& name) const { return JoinPath(scratch->path(), name); }
};

// Quantizes every unit as `formats` say, into one blob a layer and format.
inline absl::Status MakeBlobs(MadeArtifact* made) {
  const auto weights = MakeCheckpointWeights(made->source.get());
  std::map<std::tuple<int, int, int64_t, bool>, std::vector<PackedLinear>> packed;
  for (size_t i = 0; i < made->model.units.size(); ++i) {
    const UnitFormat& format = made->formats[i];
    if (format.dense()) continue;
    for (const LinearShape& shape : made->model.units[i].linears) {
      Matrix weight(shape.out_features, shape.in_features);
      LWQ_RETURN_IF_ERROR(weights->ReadLinear(shape.module, weight.view()));
      const GridSpec grid{format.bits, format.group_size, format.symmetric, false};
      QuantizedLinear linear = QuantizeSimply(weight.view(), grid);
      LWQ_ASSIGN_OR_RETURN(PackedLinear stored,
                           PackLinear(shape.module, linear, made->model.weight_dtype));
      packed[{made->model.units[i].layer, format.bits, format.group_size, format.symmetric}]
          .push_back(std::move(stored));
      made->linears[shape.module] = std::move(linear);
    }
  }
  for (const auto& [key, linears] : packed) {
    const std::string path = made->Directory(absl::StrCat("blob-", made->blobs.size()));
    LWQ_RETURN_IF_ERROR(WriteLayerBlob(path, linears));
    LWQ_ASSIGN_OR_RETURN(std::unique_ptr<LayerBlob> blob, LayerBlob::Open(path));
    made->blob_set.Add(blob.get());
    made->blobs.push_back(std::move(blob));
  }
  return absl::OkStatus();
}

inline absl::StatusOr<MadeArtifact> MakeMixed(const std::string& model_directory,
                                              std::unique_ptr<TempDirectory> scratch) {
  MadeArtifact made;
  made.scratch = std::move(scratch);
  LWQ_ASSIGN_OR_RETURN(made.source, Checkpoint::Open(model_directory));
  LWQ_ASSIGN_OR_RETURN(const DecoderSpec spec, ReadDecoderSpec(model_directory));
  LWQ_ASSIGN_OR_RETURN(made.model, TakeInventory(spec, *made.source));
  made.formats = MixedFormats(made.model);
  LWQ_RETURN_IF_ERROR(MakeBlobs(&made));
  return made;
}

inline absl::StatusOr<MadeArtifact> MakeMixedTiny(const TinyModelOptions& options) {
  LWQ_ASSIGN_OR_RETURN(TempDirectory scratch, TempDirectory::Create());
  const std::string model_directory = JoinPath(scratch.path(), "model");
  LWQ_RETURN_IF_ERROR(WriteTinyModel(options, model_directory));
  return MakeMixed(model_directory, std::make_unique<TempDirectory>(std::move(scratch)));
}

}  // namespace lwq::testing

// A method at work on one layer, or on the head or embedding: the layer's slots and what calibration
// saw of it go in; what its linears became in every wanted format, the dense tensors that changed and
// a record of each linear come out. Methods that see one linear at a time run under the one adapter
// here; the others are given the request as it is.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/device/device.h"
#include "worker/engine/evidence/evidence.h"
#include "worker/engine/format/encoded_module.h"
#include "worker/engine/model/layer_edits.h"
#include "worker/engine/model/layer_spec.h"
#include "worker/engine/model/weight_source.h"
#include "worker/engine/quant/quantizer.h"

namespace lwq {

// Linears that share one format, and the formats they are wanted in: on a grid or in GGUF blocks.
struct WantedUnit {
  AllocationUnit unit;
  std::vector<const WeightFormat*> formats;
};

// Borrows everything.
struct LayerRequest {
  Device* device = nullptr;
  const LayerSpec* layer = nullptr;
  bool in_layer = true;  // else the head or the embedding: none of its tensors may be edited
  bool looked_up = false;  // a head whose rows are the embedding's too
  double norm_offset = 0;               // what the decoder adds to the weight of a norm
  const ModelInventory* model = nullptr;  // for dtypes
  const WeightSource* weights = nullptr;  // the source model's
  const LayerEvidence* evidence = nullptr;  // what the method declared
  std::vector<WantedUnit> units;            // any of the layer's
  OptionValues options;                     // the method's
  ComputeType compute = ComputeType::kF32;
  // About how many weights of a linear are worked on at a time, in whole rows: with the statistics
  // of their inputs given, rows do not depend on each other.
  int64_t tile_weights = int64_t{1} << 22;
  // Takes what a linear became in a format of its unit, as soon as it is made, so that a layer's
  // experts need not be held at once; LayerResult::encoded stays empty then.
  std::function<absl::Status(size_t unit, size_t format, EncodedModule module)> keep;
  // Called before each linear; a non-OK answer stops and is returned.
  std::function<absl::Status(double done, const std::string& module)> progress;
};

// A linear in one of its unit's formats, as its method left it.
struct QuantizedModule {
  size_t unit = 0;    // of LayerRequest::units
  size_t format = 0;  // of WantedUnit::formats
  std::string module;
  LinearRecord record;
};

struct LayerResult {
  // [unit][format]: its linears, in the order of the layer's inputs.
  std::vector<std::vector<std::vector<EncodedModule>>> encoded;
  std::vector<QuantizedModule> linears;
  // The same whatever units and formats are wanted, and whatever others become: one set of edits
  // serves every plan. Empty unless the method's Def says that it edits tensors.
  LayerEdits edits;
};

// FORMAT_UNSUPPORTED where a format is wanted that no method makes.
absl::StatusOr<LayerResult> QuantizeLayer(const QuantizerDef& def, const LayerRequest& request);

// Fills `rows` [any, in] in device memory with the rows of a linear from `first` on.
using RowsLoader = std::function<absl::Status(int64_t first, DeviceView<float> rows)>;

// What the adapter is made of, for methods that round linear by linear in the end. The linear that
// `load` gives, some rows at a time, becomes every format of its unit and is added to `result`;
// `statistics` as Quantizer::Quantize takes them.
absl::Status AddLinear(const LayerRequest& request, const Quantizer& quantizer,
                       const InputStatistics* statistics, const LinearShape& linear, size_t unit,
                       const RowsLoader& load, LayerResult& result);
// An empty result of the request's shape.
LayerResult EmptyResult(const LayerRequest& request);
// The wanted unit that the module is of; -1: none is.
int FindWanted(const LayerRequest& request, const std::string& module);

}  // namespace lwq

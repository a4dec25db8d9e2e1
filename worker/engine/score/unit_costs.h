// What a scorer that gives costs is asked: what each unit of a layer, or the untied head, costs at
// each of its formats.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/engine/evidence/evidence.h"
#include "worker/engine/model/decoder.h"
#include "worker/engine/plan/model_inventory.h"

namespace lwq {

// Fills `weight` [rows, in] with the dequantized weights, from row `first` on, of a linear of
// units[unit] in the unit's format `format`. Called on the caller's thread, more than once for the
// same ones.
using ReplacementWeights = std::function<absl::Status(
    size_t unit, const LinearShape& linear, int format, int64_t first, DeviceView<float> weight)>;

struct UnitCostRequest {
  const Decoder* source = nullptr;
  const WeightSource* weights = nullptr;    // the source model's
  const LayerEvidence* evidence = nullptr;  // of `place`; what the scorer declared
  Place place;  // of all units: a layer, the untied head, or the embedding
  std::vector<AllocationUnit> units;
  std::vector<int> num_formats;  // of each unit
  // [unit][format], of units in layers; empty: none rounds its inputs.
  std::vector<std::vector<ActivationRule>> rules;
  ReplacementWeights replacement;
  // The scoring text, where the scorer needs it. Host memory, [T, hidden]: the source's hidden
  // states entering the layer (unused for the head) and its final ones (raw output of the last
  // layer).
  const TokenBatch* batch = nullptr;
  ConstMatrixView layer_input;
  ConstMatrixView source_output;
  // About how much the candidates' hidden states may take on disk: text is cut into chunks of whole
  // sequences, of one at least. The result depends on it in the last bits.
  int64_t max_state_bytes = int64_t{1} << 30;
  std::string scratch_directory;  // for those hidden states; empty: TMPDIR
  // Share of the work that is done; a non-OK answer stops and is returned.
  std::function<absl::Status(double done)> progress;
};

// [unit][format]
using UnitCosts = std::vector<std::vector<double>>;

// Where in the layer's list a linear is. INVALID_ARGUMENT when it is none of the layer's, or of
// another shape there.
absl::StatusOr<size_t> SlotOf(const LayerSpec& layer, const LinearShape& linear);

// Some rows of a linear and what one format makes of them, host memory [rows, in].
struct LinearError {
  size_t unit;
  int format;
  const LinearShape* linear;
  size_t input;  // of the layer's inputs
  ConstMatrixView weight;
  ConstMatrixView error;  // Q(W) - W
};

// Visits every linear of the request's units, linear by linear, some rows at a time, those at every
// format.
absl::Status ForEachError(const UnitCostRequest& request,
                          absl::FunctionRef<absl::Status(const LinearError&)> visit);

// Zeros of the request's shape; and of / by, 0 where there is nothing to divide by.
UnitCosts ZeroCosts(const UnitCostRequest& request);
UnitCosts Quotients(const UnitCosts& of, const UnitCosts& by);

// Sum of squares, in F64 in the order of rows.
double SumOfSquares(ConstMatrixView m);

}  // namespace lwq

// What quantizing one unit alone does to the model's predictions: the mean KL divergence from the
// source, for every unit of a layer at every format. Forward passes only: the layer's clean input
// is given, each candidate is the source with one unit exchanged, and all candidates go through the
// remaining layers together, so that each of those is loaded once per chunk of text.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/engine/model/decoder.h"
#include "worker/engine/plan/model_inventory.h"

namespace lwq {

// Fills `weight` [out, in] with the dequantized weights of a linear of units[unit] in the unit's
// format `format`. Called on the caller's thread, once per chunk of text, unit, format and linear.
using ReplacementWeights = std::function<absl::Status(size_t unit, const LinearShape& linear,
                                                      int format, DeviceView<float> weight)>;

struct SwapKlRequest {
  Place place;  // of all units: a layer, or the untied head
  std::vector<AllocationUnit> units;
  std::vector<int> num_formats;  // of each unit
  ReplacementWeights replacement;
  const TokenBatch* batch = nullptr;  // the scoring text
  // Host memory, [T, hidden]: the source's hidden states entering the layer (unused for the head)
  // and its final ones (raw output of the last layer).
  ConstMatrixView layer_input;
  ConstMatrixView source_output;
  // Bound on the candidates' hidden states; text is cut into chunks of whole sequences to keep it.
  // The result depends on it in the last bits.
  int64_t max_state_bytes = int64_t{1} << 30;
  // Share of the work that is done; a non-OK answer stops and is returned.
  std::function<absl::Status(double done)> progress;
};

// cost[u][f]: mean over all tokens of KL(source || source with unit u at format f), in nats, summed
// in F64 in token order. INVALID_ARGUMENT for shapes that do not fit or a linear that is not the
// layer's.
absl::StatusOr<std::vector<std::vector<double>>> SwapKl(const Decoder& source,
                                                        const SwapKlRequest& request);

// The divergence of candidates from the source at the head. `source` and each of `candidates` are
// final hidden states [T, hidden] in host memory; kl[c][t] is filled. Works on few rows at a time,
// so memory stays small for large vocabularies. `heads[c]` is the candidate's head.
absl::Status HeadKl(const Decoder& decoder, const HeadWeights& source_head, ConstMatrixView source,
                    absl::Span<const HeadWeights* const> heads,
                    absl::Span<const ConstMatrixView> candidates,
                    absl::Span<const absl::Span<double>> kl);

}  // namespace lwq

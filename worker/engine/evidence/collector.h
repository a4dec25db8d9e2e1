// What the calibration pass keeps of each layer, for the scorers and methods that declared it. A
// collector watches the layer while the calibration text goes through it, and leaves numbers,
// tables by input, or symmetric matrices; nobody but the ones who declared it reads them.
//
// Adding one: evidence/<name>.cc that defines a CollectorDef, and a line in collectors.def.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/engine/model/decoder.h"

namespace lwq {

// Takes what collectors leave. `name` is the collector's.
class EvidenceSink {
 public:
  virtual ~EvidenceSink() = default;
  // A number of the layer.
  virtual absl::Status AddValue(absl::string_view name, double value) = 0;
  // Rows [rows, input.features], host memory.
  virtual absl::Status AddTable(absl::string_view name, const InputSpec& input,
                                ConstMatrixView table) = 0;
  // The lower triangle of a symmetric [features, features].
  virtual absl::Status AddTriangle(absl::string_view name, const InputSpec& input,
                                   DeviceView<const float> triangle) = 0;
};

struct CollectorContext {
  Device* device = nullptr;
  ComputeType compute = ComputeType::kF32;
  absl::Span<const InputSpec> inputs;  // of the layer, or of the head; outlive the collector
};

// Watches one layer, on one thread. What it does not override it does not watch.
class Collector {
 public:
  virtual ~Collector() = default;
  // The next tokens' rows of an input [T, features]; in token order.
  virtual absl::Status ObserveInput(size_t /*input*/, DeviceView<const float> /*x*/) {
    return absl::OkStatus();
  }
  // Once, after the layer: of each token of `batch`, the cosine of the layer's input and its raw
  // output (before any final norm).
  virtual absl::Status ObserveDirections(const TokenBatch& /*batch*/,
                                         absl::Span<const double> /*cosines*/) {
    return absl::OkStatus();
  }
  // A routed input is over: what is large of it may be handed over now, and let go.
  virtual absl::Status FinishInput(size_t /*input*/, EvidenceSink& /*sink*/) {
    return absl::OkStatus();
  }
  virtual absl::Status Finish(EvidenceSink& sink) = 0;
};

// The number of a layer that says how many tokens came to a routed input.
std::string RoutedTokensName(const InputSpec& input);

struct CollectorDef {
  absl::string_view name;  // in keys and in names of blobs: never rename
  absl::string_view help;  // one line
  // What it watches, of the text that things are fitted to. The head has inputs only.
  bool watches_inputs;
  bool watches_directions;
  absl::StatusOr<std::unique_ptr<Collector>> (*make)(const CollectorContext& context);
};

// Sorted by name.
absl::Span<const CollectorDef* const> Collectors();
// INVALID_ARGUMENT "EVIDENCE_UNKNOWN" lists the names.
absl::StatusOr<const CollectorDef*> FindCollector(absl::string_view name);

// Several collectors that watch one layer together.
class Collection {
 public:
  // INVALID_ARGUMENT "EVIDENCE_UNKNOWN".
  static absl::StatusOr<Collection> Find(absl::Span<const std::string> names);

  bool watches_inputs() const;
  bool watches_directions() const;
  // Makes the collectors of the next layer, or with `inputs_only` those that watch inputs.
  absl::Status Begin(const CollectorContext& context, bool inputs_only = false);
  absl::Status ObserveInput(size_t input, DeviceView<const float> x);
  // Of a routed input; leaves its number of tokens as well.
  absl::Status FinishInput(size_t input, EvidenceSink& sink);
  absl::Status ObserveDirections(const TokenBatch& batch, absl::Span<const double> cosines);
  // Hands over what was collected and lets go of it, one collector after the other.
  absl::Status Finish(EvidenceSink& sink);

 private:
  std::vector<const CollectorDef*> defs_;
  std::vector<std::unique_ptr<Collector>> collectors_;
  absl::Span<const InputSpec> inputs_;
  std::vector<int64_t> num_tokens_;  // seen, by input
};

}  // namespace lwq

// How much tasks compute, from sizes alone, so that the time of a job can be told before it starts.
// Counted are the few things that take the time: large matrix products and what else goes over
// every weight, token or logit. Each is worth so many operations, an operation being a
// multiplication with its addition in a large product; a worker measures how many of those it does
// in a second (engine/device/device_speed.h), and how far the rest of its work keeps up with that
// is learnt from the tasks that it finishes.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "worker/engine/format/weight_format.h"
#include "worker/engine/plan/model_inventory.h"

namespace lwq {

struct Work {
  double products = 0;       // multiplications with additions, in large matrix products
  double attention = 0;      // the same, between queries and keys and over values
  double moments = 0;        // the same, of symmetric products of a layer's inputs
  double factor = 0;         // K^3, of each factored matrix [K, K] of second moments
  double loaded = 0;         // weights read, widened or dequantized, and prepared for products
  double rounded = 0;        // weights rounded, once for each format
  double refined = 0;        // the same, of refinement: two visits
  double descended = 0;      // the same, of GGUF's types: a visit in each sweep over blocks
  double probabilities = 0;  // logits that became probabilities
  double encoded = 0;        // tokens of text, by the tokenizer
  double stored = 0;         // bytes read or written and hashed
  double tasks = 0;          // what every task takes, however small

  Work& operator+=(const Work& other);
  friend Work operator+(Work a, const Work& b) { return a += b; }
  friend Work operator*(Work a, double times);
  // All of it as operations.
  double Operations() const;
};

// Text that goes through a model: so many tokens in sequences of so many.
struct TextSize {
  double tokens = 0;
  double sequence = 0;
};

// Sweeps over GGUF's blocks where nothing else is asked for: quant/gptq.cc's default.
inline constexpr int kDefaultBlockSweeps = 4;

// What a quantizer does to a linear besides rounding it in each format.
struct MethodTraits {
  bool calibrated = false;  // columns go one after the other, with the factor of the second moments
  bool refined = false;     // and then twice more, where a format has few bits
  int block_sweeps = 0;     // or, in GGUF's blocks, so often
};

// Counts the work of one model's tasks. Immutable; keeps a pointer to the inventory.
class WorkModel {
 public:
  explicit WorkModel(const ModelInventory* model);

  // Layers [first, end), or the output head with its probabilities, over a text.
  Work Layers(int first, int end, TextSize text) const;
  Work Head(double tokens) const;
  Work WholeModel(TextSize text) const;
  // What calibration collects of layers [first, end) besides running them.
  Work SecondMoments(int first, int end, double tokens) const;
  Work Preflight(TextSize text) const;
  // Units of one place in formats: `formats[u]` of `units[u]`.
  Work Quantize(absl::Span<const AllocationUnit* const> units,
                absl::Span<const std::vector<const WeightFormat*>> formats,
                MethodTraits method) const;
  // Each of `candidates` exchanges something in `place`, and goes through all that is behind it.
  Work Exchange(Place place, double candidates, TextSize text) const;
  // A plan in the place of the source's weights, against the source's stored final states.
  Work Trial(TextSize text) const;
  // Files of so many bytes, written from blobs; and opened again and compared.
  Work Assemble(double file_bytes) const;
  Work Verify(double file_bytes) const;
  // Perplexity in windows, against a source where there is one, and in the rolling form of so many
  // tokens, whose windows are as long as the model takes.
  Work EvaluateText(TextSize windows, double rolling_tokens, bool against_source) const;
  // Multiple choice: so many tokens of contexts and choices in all.
  Work EvaluateChoices(double tokens) const;

 private:
  double LayerWeights(int layer) const { return layer_weights_[static_cast<size_t>(layer)]; }

  const ModelInventory* const model_;
  std::vector<double> layer_weights_;
  std::vector<double> met_weights_;  // by a token: of experts, those that answer
  double head_weights_ = 0;
};

}  // namespace lwq

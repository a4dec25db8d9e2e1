#include "worker/engine/plan/work_model.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "absl/strings/string_view.h"
#include "worker/engine/format/gguf.h"
#include "worker/engine/format/grid.h"

namespace lwq {
namespace {

// What each kind of work is worth in operations of a large F32 product. Fitted to the tasks of real
// jobs on the cpu device (docs/results/operate.md); a worker's own pace corrects them.
constexpr double kAttention = 3.5;
constexpr double kMoments = 1;
constexpr double kFactor = 1.2;
constexpr double kLoaded = 40;
constexpr double kRounded = 1200;
constexpr double kSearched = 450;  // a GGUF type's, whose search is over blocks
constexpr double kRefined = 600;
constexpr double kDescended = 1500;
// Of types with codebooks, as often what the same takes of others; docs/formats/gguf.md.
constexpr double kCodebookRounded = 6;
constexpr double kCodebookDescended = 1.8;
constexpr double kProbabilities = 150;
constexpr double kEncoded = 1e5;
constexpr double kStored = 60;
constexpr double kTasks = 4e9;

// Refinement is of formats with at most so many bits (quant/gptq.cc).
constexpr int kMaxRefinedBits = 4;
// Sweeps are over blocks of types with at most so many levels (quant/block_descent.h).
constexpr size_t kMaxSweptLevels = 32;
// Tokens of the checks of preflight and verification (runner/).
constexpr double kProofTokens = 128;
// Of a candidate's hidden states at once (runner/score_task.cc): how often layers are loaded.
constexpr double kStateBytes = 192 << 20;

double WeightsOf(const AllocationUnit& unit) { return static_cast<double>(unit.num_weights()); }

// The share of a unit's weights that a token meets. Of experts the inventory does not say how many
// answer; in the families there are it is two, and one of sixteen where there are many.
double MetShare(const AllocationUnit& unit) {
  if (!unit.of_experts()) return 1;
  const auto experts = static_cast<double>(std::count_if(
      unit.linears.begin(), unit.linears.end(),
      [&](const LinearShape& linear) { return linear.name == unit.linears.front().name; }));
  return std::min(1.0, std::max(2.0, experts / 16) / experts);
}

// The inputs of some linears of a layer, of each of which there is one matrix of second moments.
class DistinctInputs {
 public:
  // Whether none before reads what this one reads. One whose input is not known counts for itself.
  bool Add(const LinearShape& linear) {
    return linear.input.empty() || inputs_.insert(linear.input).second;
  }

 private:
  std::set<absl::string_view> inputs_;
};

}  // namespace

Work& Work::operator+=(const Work& other) {
  products += other.products;
  attention += other.attention;
  moments += other.moments;
  factor += other.factor;
  loaded += other.loaded;
  rounded += other.rounded;
  refined += other.refined;
  descended += other.descended;
  probabilities += other.probabilities;
  encoded += other.encoded;
  stored += other.stored;
  tasks += other.tasks;
  return *this;
}

Work operator*(Work a, double times) {
  for (double* part :
       {&a.products, &a.attention, &a.moments, &a.factor, &a.loaded, &a.rounded, &a.refined,
        &a.descended, &a.probabilities, &a.encoded, &a.stored, &a.tasks}) {
    *part *= times;
  }
  return a;
}

double Work::Operations() const {
  return products + kAttention * attention + kMoments * moments + kFactor * factor +
         kLoaded * loaded + kRounded * rounded + kRefined * refined + kDescended * descended +
         kProbabilities * probabilities + kEncoded * encoded + kStored * stored + kTasks * tasks;
}

WorkModel::WorkModel(const ModelInventory* model) : model_(model) {
  layer_weights_.assign(static_cast<size_t>(std::max(model->num_layers, 0)), 0);
  met_weights_ = layer_weights_;
  head_weights_ = static_cast<double>(model->vocab_size) * static_cast<double>(model->hidden_size);
  for (const AllocationUnit& unit : model->units) {
    if (!unit.place.in_layer()) continue;
    layer_weights_[static_cast<size_t>(unit.place.layer)] += WeightsOf(unit);
    met_weights_[static_cast<size_t>(unit.place.layer)] += WeightsOf(unit) * MetShare(unit);
  }
}

Work WorkModel::Layers(int first, int end, TextSize text) const {
  Work work;
  const double query_width = double{1} * model_->num_heads * model_->head_dim;
  for (int layer = first; layer < end; ++layer) {
    work.products += text.tokens * met_weights_[static_cast<size_t>(layer)];
    // A token sees half of its sequence on average; queries with keys, then values.
    work.attention += text.tokens * text.sequence / 2 * 2 * query_width;
    work.loaded += LayerWeights(layer);
  }
  return work;
}

Work WorkModel::Head(double tokens) const {
  Work work;
  work.products = tokens * head_weights_;
  work.probabilities = tokens * static_cast<double>(model_->vocab_size);
  work.loaded = head_weights_;
  return work;
}

Work WorkModel::WholeModel(TextSize text) const {
  return Layers(0, model_->num_layers, text) + Head(text.tokens);
}

Work WorkModel::SecondMoments(int first, int end, double tokens) const {
  Work work;
  // By layer: where engines fuse nothing, q, k and v are three units.
  std::map<int, DistinctInputs> seen;
  for (const AllocationUnit& unit : model_->units) {
    const int layer = unit.place.layer;
    if (!unit.place.in_layer() || layer < first || layer >= end) continue;
    for (const LinearShape& linear : unit.linears) {
      if (!seen[layer].Add(linear)) continue;
      const auto inputs = static_cast<double>(linear.in_features);
      work.moments += tokens * MetShare(unit) * inputs * inputs / 2;
      work.stored += 2 * inputs * inputs;
    }
  }
  return work;
}

Work WorkModel::Preflight(TextSize text) const {
  Work work;
  double widest = 0;
  for (const AllocationUnit& unit : model_->units) {
    for (const LinearShape& linear : unit.linears) {
      widest = std::max(widest, static_cast<double>(linear.in_features));
    }
  }
  const auto largest = std::max_element(layer_weights_.begin(), layer_weights_.end());
  if (largest != layer_weights_.end()) {
    work.products = text.tokens * *largest;
    work.loaded = *largest;
  }
  work.factor = widest * widest * widest;
  work.tasks = 1;
  return work;
}

Work WorkModel::Quantize(absl::Span<const AllocationUnit* const> units,
                         absl::Span<const std::vector<const WeightFormat*>> formats,
                         MethodTraits method) const {
  Work work;
  DistinctInputs factored;
  for (size_t u = 0; u < units.size(); ++u) {
    for (const LinearShape& linear : units[u]->linears) {
      const auto inputs = static_cast<double>(linear.in_features);
      const auto weights = static_cast<double>(linear.num_weights());
      work.loaded += weights;
      if (method.calibrated && factored.Add(linear)) {
        work.factor += inputs * inputs * inputs;
        work.stored += 2 * inputs * inputs;
      }
      for (const WeightFormat* format : formats[u]) {
        if (format->dense() || !format->Accepts(linear.out_features, linear.in_features).ok()) {
          continue;
        }
        const bool has_codebook =
            format->gguf() != nullptr && format->gguf()->type().shape->codebook != nullptr;
        work.rounded += (format->gguf() != nullptr ? weights * kSearched / kRounded : weights) *
                        (has_codebook ? kCodebookRounded : 1);
        work.stored += static_cast<double>(
            format->PartBytes(linear.out_features, linear.in_features, model_->weight_dtype));
        if (!method.calibrated) continue;
        // Errors are pushed onto the columns behind: half of them on average.
        work.products += weights * inputs / 2;
        if (format->gguf() != nullptr && method.refined &&
            format->gguf()->type().shape->levels.size() <= kMaxSweptLevels) {
          work.products += weights * inputs * method.block_sweeps;
          work.descended += weights * method.block_sweeps * (has_codebook ? kCodebookDescended : 1);
        }
        const bool few_bits =
            format->grid() != nullptr && format->grid()->bits() <= kMaxRefinedBits;
        if (!method.refined || !few_bits) continue;
        work.products += weights * inputs * 1.5;
        work.refined += weights;
      }
    }
  }
  work.tasks = 1;
  return work;
}

Work WorkModel::Exchange(Place place, double candidates, TextSize text) const {
  Work work;
  const int first = place.in_layer()         ? place.layer
                    : place == Place::Head() ? model_->num_layers
                                             : 0;
  const TextSize all{.tokens = candidates * text.tokens, .sequence = text.sequence};
  const double chunks = std::ceil(
      std::max(all.tokens * 4.0 * static_cast<double>(model_->hidden_size) / kStateBytes, 1.0));
  work = Layers(first, model_->num_layers, all);
  work.loaded *= chunks;
  work += Head(text.tokens) + Head(all.tokens);
  // The exchanged units, dequantized for each chunk.
  if (place.in_layer()) work.loaded += chunks * candidates * LayerWeights(place.layer) / 4;
  work.tasks = 1;
  return work;
}

Work WorkModel::Trial(TextSize text) const {
  Work work = WholeModel(text) + Head(text.tokens);
  work.tasks = 1;
  return work;
}

Work WorkModel::Assemble(double file_bytes) const {
  Work work;
  work.stored = 2 * file_bytes;
  work.tasks = 1;
  return work;
}

Work WorkModel::Verify(double file_bytes) const {
  Work work = WholeModel({kProofTokens, kProofTokens}) * 2;
  work.stored = 3 * file_bytes;
  work.tasks = 1;
  return work;
}

Work WorkModel::EvaluateText(TextSize windows, double rolling_tokens, bool against_source) const {
  Work work = WholeModel(windows);
  if (against_source) work += WholeModel(windows);
  const double longest =
      std::max(1.0, std::min(static_cast<double>(model_->max_positions), rolling_tokens));
  // The last window reaches back to be full.
  work += WholeModel({std::ceil(rolling_tokens / longest) * longest, longest});
  work.encoded = windows.tokens + rolling_tokens;
  work.tasks = 1;
  return work;
}

Work WorkModel::EvaluateChoices(double tokens) const {
  constexpr double kItemTokens = 64;
  Work work = WholeModel({tokens, kItemTokens});
  work.encoded = tokens;
  work.tasks = 1;
  return work;
}

}  // namespace lwq

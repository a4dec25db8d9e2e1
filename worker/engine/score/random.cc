// Baseline: an order drawn from the job's seed. SplitMix64 (Steele, Lea, Flood 2014), because the
// standard library's distributions differ between implementations.
#include "worker/engine/score/scorer.h"

namespace lwq {
namespace {

uint64_t SplitMix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

constexpr OptionDef kSeed = {
    .name = "seed",
    .type = OptionDef::Type::kInteger,
    .default_value = "0",
    .minimum = 0,
    .maximum = 0x1p40,
    .help = "another seed is another order",
};
constexpr OptionDef kOptions[] = {kSeed};

absl::StatusOr<double> ScoreRandom(const ScoredLayer& layer) {
  const uint64_t seed = static_cast<uint64_t>(layer.options.Integer(kSeed.name));
  const uint64_t bits = SplitMix64(SplitMix64(seed) + static_cast<uint64_t>(layer.layer));
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace

extern const ScorerDef random_scorer;
const ScorerDef random_scorer = {.name = "random",
                                 .help = "baseline: an order drawn from the seed",
                                 .options = kOptions,
                                 .score_layer = &ScoreRandom};

}  // namespace lwq

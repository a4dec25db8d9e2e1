#include "worker/engine/model/rope.h"

#include <algorithm>
#include <cmath>

namespace lwq {
namespace {

// In F32 throughout, as the models were trained.
std::vector<float> PlainFrequencies(double theta, int rotated) {
  std::vector<float> frequencies(static_cast<size_t>(rotated / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rotated);
    frequencies[i] = 1.0f / std::pow(static_cast<float>(theta), exponent);
  }
  return frequencies;
}

// Long waves are stretched, short ones left alone, those between blended.
float Llama3Frequency(const RopeSpec& rope, float frequency) {
  constexpr float kPi = 3.14159265358979f;
  const float positions = static_cast<float>(rope.original_max_positions);
  const float low = static_cast<float>(rope.low_freq_factor);
  const float high = static_cast<float>(rope.high_freq_factor);
  const float scaled = frequency / static_cast<float>(rope.factor);
  const float wavelength = 2 * kPi / frequency;
  if (wavelength > positions / low) return scaled;
  if (wavelength < positions / high) return frequency;
  const float blend = (positions / wavelength - low) / (high - low);
  return (1 - blend) * scaled + blend * frequency;
}

// The pair whose wave turns `rotations` times over the positions of the first training.
double PairOfRotations(const RopeSpec& rope, int rotated, double rotations) {
  const double positions = static_cast<double>(rope.original_max_positions);
  return rotated * std::log(positions / (rotations * 2 * M_PI)) / (2 * std::log(rope.theta));
}

// As llama3, but the blend is linear in the number of the pair.
void StretchByYarn(const RopeSpec& rope, int rotated, std::vector<float>& frequencies) {
  double low = PairOfRotations(rope, rotated, rope.beta_fast);
  double high = PairOfRotations(rope, rotated, rope.beta_slow);
  if (rope.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, static_cast<double>(rotated - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float ramp =
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float stretched = std::clamp(ramp, 0.0f, 1.0f);
    frequencies[i] = frequencies[i] / static_cast<float>(rope.factor) * stretched +
                     frequencies[i] * (1 - stretched);
  }
}

double DynamicTheta(const RopeSpec& rope, int rotated, int64_t length) {
  const double stretch =
      static_cast<double>(length) / static_cast<double>(rope.original_max_positions);
  const double exponent = static_cast<double>(rotated) / (rotated - 2);
  return rope.theta * std::pow(rope.factor * stretch - (rope.factor - 1), exponent);
}

}  // namespace

int64_t RopeLength(const RopeSpec& rope, int64_t length) {
  if (length <= rope.original_max_positions) return 0;
  if (rope.type == RopeType::kDynamic) return length;
  return rope.type == RopeType::kLongRope ? rope.original_max_positions + 1 : 0;
}

std::vector<float> InverseFrequencies(const RopeSpec& rope, int head_dim, int64_t length) {
  const int rotated = rope.rotated == 0 ? head_dim : rope.rotated;
  const double theta = rope.type == RopeType::kDynamic && length > 0
                           ? DynamicTheta(rope, rotated, length)
                           : rope.theta;
  std::vector<float> frequencies = PlainFrequencies(theta, rotated);
  if (rope.type == RopeType::kLinear) {
    for (float& frequency : frequencies) frequency /= static_cast<float>(rope.factor);
  } else if (rope.type == RopeType::kLlama3) {
    for (float& frequency : frequencies) frequency = Llama3Frequency(rope, frequency);
  } else if (rope.type == RopeType::kYarn) {
    StretchByYarn(rope, rotated, frequencies);
  } else if (rope.type == RopeType::kLongRope) {
    const std::vector<double>& factors = length > 0 ? rope.long_factor : rope.short_factor;
    for (size_t i = 0; i < frequencies.size(); ++i) {
      frequencies[i] /= static_cast<float>(factors[i]);
    }
  }
  return frequencies;
}

}  // namespace lwq

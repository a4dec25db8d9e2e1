#include "worker/engine/gguf/gguf_rope.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"

namespace lwq {
namespace {

constexpr int64_t kMostValues = 4096;
// Divisors are F32, and made of several roundings.
constexpr double kSame = 1e-5;

double Wavelength(size_t pair, double theta, int64_t head_dim) {
  return 2 * M_PI *
         std::pow(theta, 2.0 * static_cast<double>(pair) / static_cast<double>(head_dim));
}

double Divisor(const Llama3Rope& rope, double wavelength) {
  const double between =
      (static_cast<double>(rope.original_max_positions) / wavelength - rope.low_freq_factor) /
      (rope.high_freq_factor - rope.low_freq_factor);
  if (between >= 1) return 1;
  if (between <= 0) return rope.factor;
  return 1 / ((1 - between) / rope.factor + between);
}

bool Gives(const Llama3Rope& rope, absl::Span<const float> divisors, double theta,
           int64_t head_dim) {
  if (!(rope.high_freq_factor > rope.low_freq_factor) || rope.original_max_positions < 1) {
    return false;
  }
  for (size_t i = 0; i < divisors.size(); ++i) {
    const double wanted = static_cast<double>(divisors[i]);
    const double made = Divisor(rope, Wavelength(i, theta, head_dim));
    if (!(std::abs(made - wanted) <= kSame * wanted)) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<std::vector<float>> ReadGgufVector(const GgufFile& file, absl::string_view name) {
  const int index = file.Find(name);
  if (index < 0) {
    return Failure(reasons::kTensorMissing, absl::StrCat("the GGUF file has no tensor ", name));
  }
  const GgufTensorSpec& spec = file.header().tensors[static_cast<size_t>(index)];
  if (spec.shape.size() != 1 || spec.shape[0] > kMostValues) {
    return Failure(reasons::kGgufTensor,
                   absl::StrCat("tensor ", name, " of the GGUF file: expected a vector of at most ",
                                kMostValues, " values"));
  }
  std::vector<float> values(static_cast<size_t>(spec.shape[0]));
  DequantizeRow(DefOf(spec.type), file.Bytes(index).data(), spec.shape[0], values.data());
  return values;
}

// Between the long waves, which are divided by the factor, and the short ones, which are left
// alone, 1 / divisor is a line over 1 / wavelength: two points of it give the rest.
std::optional<Llama3Rope> Llama3RopeOf(absl::Span<const float> divisors, double theta,
                                       int64_t head_dim) {
  if (static_cast<int64_t>(divisors.size()) * 2 != head_dim) return std::nullopt;
  Llama3Rope rope;
  rope.factor =
      std::round(static_cast<double>(*std::max_element(divisors.begin(), divisors.end())) * 1024) /
      1024;
  if (!(rope.factor > 1) || !std::isfinite(rope.factor)) return std::nullopt;
  struct Point {
    double frequency, between;
  };
  std::vector<Point> points;
  for (size_t i = 0; i < divisors.size(); ++i) {
    const double divisor = static_cast<double>(divisors[i]);
    if (!(divisor > 1 + kSame) || !(divisor < rope.factor * (1 - kSame))) continue;
    points.push_back({1 / Wavelength(i, theta, head_dim),
                      (1 / divisor - 1 / rope.factor) / (1 - 1 / rope.factor)});
  }
  if (Gives(rope, divisors, theta, head_dim)) return rope;  // as published
  if (points.empty()) return std::nullopt;
  const Point &first = points.front(), &last = points.back();
  // Of one point, with high_freq_factor 4, as published.
  double slope = (first.between + 1.0 / 3) / first.frequency, at_zero = -1.0 / 3;
  if (points.size() > 1) {
    slope = (first.between - last.between) / (first.frequency - last.frequency);
    at_zero = first.between - slope * first.frequency;
  }
  if (!(slope > 0) || !(at_zero < 0)) return std::nullopt;
  rope.low_freq_factor = 1;
  rope.high_freq_factor = std::round((1 - 1 / at_zero) * 1000) / 1000;
  const double original = slope * (rope.high_freq_factor - 1);
  if (!(original >= 1 && original < 1e9)) return std::nullopt;
  rope.original_max_positions = static_cast<int64_t>(std::llround(original));
  if (Gives(rope, divisors, theta, head_dim)) return rope;
  return std::nullopt;
}

}  // namespace lwq

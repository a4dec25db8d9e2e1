#include "worker/engine/score/cost_curve.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace lwq {
namespace {

constexpr double kFiner = 12;
// Measurements of little damage are mostly rounding: the power stays near the law of small errors.
constexpr double kLeastPower = 0.5;
constexpr double kMostPower = 2;

double PowerThrough(double coarse_error, double coarse_cost, double fine_error, double fine_cost) {
  if (!(coarse_cost > 0) || !(fine_cost > 0) || !(coarse_error > fine_error)) return 1;
  const double power = std::log(coarse_cost / fine_cost) / std::log(coarse_error / fine_error);
  return std::clamp(power, kLeastPower, kMostPower);
}

}  // namespace

std::vector<size_t> FormatsToMeasure(const std::vector<double>& errors) {
  std::vector<size_t> all(errors.size());
  std::iota(all.begin(), all.end(), size_t{0});
  const bool known = std::all_of(errors.begin(), errors.end(), [](double e) { return e > 0; });
  if (!known || errors.size() < 3) return all;
  size_t finer = 1;
  while (finer + 1 < errors.size() && errors[finer] > errors[0] / kFiner) ++finer;
  return {0, finer};
}

std::vector<double> CostsFromErrors(const std::vector<double>& errors,
                                    const std::vector<size_t>& measured_formats,
                                    const std::vector<double>& measured) {
  std::vector<double> costs(errors.size(), 0);
  for (size_t i = 0; i < measured_formats.size(); ++i) costs[measured_formats[i]] = measured[i];
  if (measured_formats.size() != 2) return costs;
  const size_t coarse = measured_formats[0], fine = measured_formats[1];
  const double power = PowerThrough(errors[coarse], measured[0], errors[fine], measured[1]);
  for (size_t f = 0; f < errors.size(); ++f) {
    if (f == coarse || f == fine) continue;
    const size_t from = f < fine ? coarse : fine;
    costs[f] = costs[from] * std::pow(errors[f] / errors[from], power);
    if (f < fine) {
      const auto [least, most] = std::minmax(measured[0], measured[1]);
      costs[f] = std::clamp(costs[f], least, most);
    }
  }
  return costs;
}

}  // namespace lwq

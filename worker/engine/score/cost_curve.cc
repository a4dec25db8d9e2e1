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
  std::vector<size_t> measured, known;
  for (size_t f = 0; f < errors.size(); ++f) (errors[f] > 0 ? known : measured).push_back(f);
  if (known.size() < 3) {
    measured.insert(measured.end(), known.begin(), known.end());
  } else {
    size_t finer = 1;
    const double enough = errors[known[0]] / kFiner;
    while (finer + 1 < known.size() && errors[known[finer]] > enough) ++finer;
    measured.push_back(known[0]);
    measured.push_back(known[finer]);
  }
  std::sort(measured.begin(), measured.end());
  return measured;
}

std::vector<double> CostsFromErrors(const std::vector<double>& errors,
                                    const std::vector<size_t>& measured_formats,
                                    const std::vector<double>& measured) {
  std::vector<double> costs(errors.size(), 0);
  std::vector<size_t> others(errors.size());
  std::iota(others.begin(), others.end(), size_t{0});
  std::vector<size_t> known;  // of those that were measured, with an error to go by
  for (size_t i = 0; i < measured_formats.size(); ++i) {
    const size_t f = measured_formats[i];
    costs[f] = measured[i];
    others.erase(std::find(others.begin(), others.end(), f));
    if (errors[f] > 0) known.push_back(f);
  }
  if (others.empty() || known.size() != 2) return costs;
  const size_t coarse = known[0], fine = known[1];
  const double power = PowerThrough(errors[coarse], costs[coarse], errors[fine], costs[fine]);
  for (const size_t f : others) {
    const size_t from = f < fine ? coarse : fine;
    costs[f] = costs[from] * std::pow(errors[f] / errors[from], power);
    if (f < fine) {
      const auto [least, most] = std::minmax(costs[coarse], costs[fine]);
      costs[f] = std::clamp(costs[f], least, most);
    }
  }
  return costs;
}

}  // namespace lwq

#include "server/dispatch/shares.h"

#include <algorithm>

namespace lwq {
namespace {

template <typename T>
T Find(const std::map<std::string, T>& values, const std::string& tenant) {
  const auto found = values.find(tenant);
  return found == values.end() ? T{} : found->second;
}

}  // namespace

double Shares::UsedBy(const std::string& tenant) const {
  const auto found = used_.find(tenant);
  return (found == used_.end() ? now_ : found->second) + Find(pending_, tenant);
}

double Shares::CostOf(const std::string& tenant, double seconds) const {
  return seconds / OptionsOf(settings_, tenant).weight;
}

int64_t Shares::NumServed(const std::string& tenant) const { return Find(served_, tenant); }
double Shares::SecondsOf(const std::string& tenant) const { return Find(seconds_, tenant); }

void Shares::Join(const std::string& tenant) {
  double& used = used_.try_emplace(tenant, now_).first->second;
  used = std::max(used, now_);
}

void Shares::Serve(const std::string& tenant, double seconds) {
  now_ = std::max(now_, used_.try_emplace(tenant, now_).first->second);
  ++served_[tenant];
  pending_[tenant] += CostOf(tenant, seconds);
  seconds_[tenant] += seconds;
}

void Shares::Settle(const std::string& tenant, double expected_seconds, double seconds) {
  double& pending = pending_[tenant];
  pending = std::max(0.0, pending - CostOf(tenant, expected_seconds));
  used_.try_emplace(tenant, now_).first->second += CostOf(tenant, seconds);
  seconds_[tenant] += seconds - expected_seconds;
}

}  // namespace lwq

// Whose turn it is: each tenant's use of the workers, over its weight. The one with the least comes
// first, so that tenants with work to do get of the workers' time what their weights say; one that
// had none begins beside the others, not before them. Start-time fair queueing (Goyal, Vin, Cheng,
// SIGCOMM 1996), with what a task took put right when it ends. Kept in memory alone.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "server/dispatch/tenant_options.h"

namespace lwq {

// Every so many tasks of a tenant, one that has waited for so long goes before all others of its:
// low priorities wait, but not for ever.
inline constexpr int kTurnOfLongestWait = 4;
inline constexpr int64_t kLongWaitUs = 600'000'000;

// Not thread-safe.
class Shares {
 public:
  // `settings` outlives this.
  explicit Shares(const TenantSettings* settings) : settings_(*settings) {}

  // What the tenant has used and is expected to use, over its weight: less comes first.
  double UsedBy(const std::string& tenant) const;
  // So many seconds of a worker, on that scale.
  double CostOf(const std::string& tenant, double seconds) const;
  // Of all tasks that it was handed.
  int64_t NumServed(const std::string& tenant) const;
  double SecondsOf(const std::string& tenant) const;
  const std::map<std::string, int64_t>& served() const { return served_; }

  // The tenant has work again after it had none.
  void Join(const std::string& tenant);
  // It was handed a task that is expected to take so long.
  void Serve(const std::string& tenant, double seconds);
  // That task has ended, however it did, after so long.
  void Settle(const std::string& tenant, double expected_seconds, double seconds);

 private:
  const TenantSettings& settings_;
  // What the last that was served had used before, by tasks that have ended: what is expected of
  // those that run is a worker's word, and does not move where others begin.
  double now_ = 0;
  std::map<std::string, double> used_;     // by tasks that have ended
  std::map<std::string, double> pending_;  // by those that run, as was expected
  std::map<std::string, double> seconds_;
  std::map<std::string, int64_t> served_;
};

}  // namespace lwq

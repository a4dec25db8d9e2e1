// Bugs put into the service on purpose. The simulation has to find each.
#pragma once

namespace lwq::simulation {

enum class Plant {
  kNone,
  kSplitCommits,  // a commit is not one but two
  kNoFence,       // a commit does not ask whether its server still leads
  kLostWakeUp,    // a poll that is told of a task is gone, and the next one is not told
  kNoQuota,       // a tenant has as many jobs at work as it likes
  kStarving,      // a tenant's share is next to nothing
};

}  // namespace lwq::simulation

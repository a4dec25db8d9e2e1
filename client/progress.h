// What a person sees of a running job. Pure: events in, lines out.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "proto/lwq/v1/event.pb.h"

namespace lwq::client {

// Phase and state names as people read them: "quantize", "SUCCEEDED".
std::string PhaseName(v1::Phase phase);
std::string StateName(v1::Job::State state);

class ProgressView {
 public:
  void Apply(const v1::JobEvent& event);

  // One bar a phase that has begun or is to come, then one line about the whole; none is wider than
  // `width` columns. A bar never goes back within a generation of the job.
  std::vector<std::string> Lines(int width) const;
  // The event in one line for a pipe or log; empty when it is not worth one.
  static std::string EventLine(const v1::JobEvent& event);

  const v1::Progress& progress() const { return progress_; }

 private:
  void Take(const v1::Job& job);
  void Take(const v1::Progress& progress);

  int generation_ = 0;
  v1::Job::State state_ = v1::Job::STATE_UNSPECIFIED;
  std::string queue_detail_;
  v1::Progress progress_;
  std::map<int, v1::PhaseProgress> phases_;
  std::string trouble_;  // the newest task that will run again
};

}  // namespace lwq::client

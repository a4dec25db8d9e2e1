// What a person sees of a running job. Pure: events and times in, lines out.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proto/lwq/v1/event.pb.h"

namespace lwq::client {

// Phase and state names as people read them: "quantize", "SUCCEEDED".
std::string PhaseName(v1::Phase phase);
std::string StateName(v1::Job::State state);

// Whether it ended as a whole or goes on: of a job that ended early nobody can say how much of the
// whole its tasks would have been.
bool HasFraction(v1::Job::State state);
// "42% 4/10", or "4/10" without a fraction.
std::string DoneText(const v1::Job& job);

// "0:07", "12:31", "1:02:09": a clock that runs.
std::string ClockText(absl::Duration time);

class ProgressView {
 public:
  // `now` is this machine's time, which may differ from the server's.
  void Apply(const v1::JobEvent& event, absl::Time now);

  // One bar a phase that has begun or is to come, one line about the whole, and what runs now; none
  // is wider than `width` columns. A bar never goes back within a generation of the job.
  std::vector<std::string> Lines(int width, absl::Time now) const;
  // The whole in one line: " 42%  1:31 elapsed, about 2 min left  ...".
  std::string StatusLine(absl::Time now) const;
  // The event in one line for a pipe or log; empty when it is not worth one.
  static std::string EventLine(const v1::JobEvent& event);

  const v1::Progress& progress() const { return progress_; }

 private:
  void Take(const v1::Job& job);
  void Take(const v1::Progress& progress);
  // Since the job was submitted, by the server's clock, which is read off its events.
  std::optional<absl::Duration> Elapsed(absl::Time now) const;
  std::optional<double> SecondsLeft(absl::Time now) const;
  std::string RunningLine(absl::Time now) const;

  int generation_ = 0;
  std::string name_;
  v1::Job::State state_ = v1::Job::STATE_UNSPECIFIED;
  std::string queue_detail_;
  v1::Progress progress_;
  std::map<int, v1::PhaseProgress> phases_;
  std::string trouble_;                     // the newest task that will run again
  std::optional<absl::Time> begun_;         // the server's
  absl::Time told_ = absl::InfinitePast();  // when progress_ came, this machine's
  absl::Duration ahead_;                    // the server's clock, of this machine's
};

}  // namespace lwq::client

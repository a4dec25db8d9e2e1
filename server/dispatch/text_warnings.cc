#include "server/dispatch/text_warnings.h"

#include "absl/strings/str_cat.h"
#include "server/dispatch/task_work.h"

namespace lwq {

std::vector<std::string> TextWarnings(const GraphInput& input) {
  if (!input.spec.has_quantize() || !RunsSource(input)) return {};
  const v1::Calibration& asked = input.spec.quantize().calibration();
  const auto dataset = input.datasets.find(asked.dataset());
  if (dataset == input.datasets.end()) return {};
  int64_t wanted = asked.num_tokens();
  if (input.scores_needed) wanted += asked.score_tokens();
  if (input.max_trials > 0) wanted += asked.trial_tokens() + asked.judge_tokens();
  const auto bytes = static_cast<double>(dataset->second.blob().size_bytes());
  const auto tokens = static_cast<int64_t>(bytes / kBytesPerToken);
  if (tokens >= wanted) return {};
  return {absl::StrCat("the calibration text ", asked.dataset(), " has about ", tokens,
                       " tokens and the job wants ", wanted,
                       ": where it is too short, what plans are compared and judged on is "
                       "also what the statistics are made of, and KL comes out too low. Give more "
                       "text, or ask for fewer calibration tokens")};
}

}  // namespace lwq

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/score/scorer.h"

namespace lwq {

#define LWQ_SCORER(name) extern const ScorerDef name##_scorer;
#include "worker/engine/score/scorers.def"
#undef LWQ_SCORER

namespace {

#define LWQ_SCORER(name) &name##_scorer,
constexpr const ScorerDef* kScorers[] = {
#include "worker/engine/score/scorers.def"
};
#undef LWQ_SCORER

}  // namespace

absl::Span<const ScorerDef* const> Scorers() { return kScorers; }

absl::StatusOr<const ScorerDef*> FindScorer(absl::string_view name) {
  std::vector<absl::string_view> names;
  for (const ScorerDef* scorer : kScorers) {
    if (scorer->name == name) return scorer;
    names.push_back(scorer->name);
  }
  return Failure(reasons::kScorerUnknown,
                 absl::StrCat("scorer is \"", name.substr(0, 80), "\", expected one of ",
                              absl::StrJoin(names, ", ")));
}

}  // namespace lwq

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/failure.h"
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

constexpr int64_t kRowsAtOnce = 2048;

}  // namespace

absl::Span<const ScorerDef* const> Scorers() { return kScorers; }

absl::StatusOr<const ScorerDef*> FindScorer(absl::string_view name) {
  std::vector<absl::string_view> names;
  for (const ScorerDef* scorer : kScorers) {
    if (scorer->name == name) return scorer;
    names.push_back(scorer->name);
  }
  return InvalidFailure("SCORER_UNKNOWN",
                        absl::StrCat("scorer is \"", name.substr(0, 80), "\", expected one of ",
                                     absl::StrJoin(names, ", ")));
}

absl::StatusOr<double> MeanRowCosine(Device* device, ConstMatrixView x, ConstMatrixView y) {
  if (x.rows == 0) return absl::InvalidArgumentError("the mean cosine of no rows");
  const int64_t block = std::min(x.rows, kRowsAtOnce);
  LWQ_ASSIGN_OR_RETURN(auto device_x, device->NewMatrix(block, x.cols));
  LWQ_ASSIGN_OR_RETURN(auto device_y, device->NewMatrix(block, x.cols));
  std::vector<double> cosines(static_cast<size_t>(block));
  double sum = 0;
  for (int64_t begin = 0; begin < x.rows; begin += block) {
    const int64_t rows = std::min(block, x.rows - begin);
    const MatrixView dx = device_x->Rows(0, rows), dy = device_y->Rows(0, rows);
    LWQ_RETURN_IF_ERROR(device->Upload(x.Rows(begin, rows), dx));
    LWQ_RETURN_IF_ERROR(device->Upload(y.Rows(begin, rows), dy));
    const absl::Span<double> out = absl::MakeSpan(cosines).first(static_cast<size_t>(rows));
    LWQ_RETURN_IF_ERROR(device->RowCosine(dx, dy, out));
    for (double cosine : out) sum += cosine;
  }
  return sum / static_cast<double>(x.rows);
}

}  // namespace lwq

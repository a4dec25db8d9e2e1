#include "server/dispatch/job_options.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/decimal.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "records/option_records.h"

namespace lwq {
namespace {

// A field of QuantizeSpec that was there before its option.
struct Spelling {
  std::string field;
  std::string option;
  std::string text;  // empty: the field says nothing
};

std::vector<Spelling> OfMethod(const v1::QuantizeSpec& spec) {
  const auto off = [](bool no) { return std::string(no ? "false" : ""); };
  return {{"no_act_order", "act-order", off(spec.no_act_order())},
          {"damping", "damping", spec.damping() == 0 ? "" : ShortestDecimal(spec.damping())},
          {"no_refinement", "refinement", off(spec.no_refinement())},
          {"no_scale_search", "scale-search", off(spec.no_scale_search())}};
}

std::vector<Spelling> OfScorer(const v1::QuantizeSpec& spec) {
  return {{"seed", "seed", spec.seed() == 0 ? "" : absl::StrCat(spec.seed())}};
}

absl::Status Fill(const std::string& owner, const v1::Capability& capability,
                  const std::vector<Spelling>& spellings, bool strict, OptionMap* options) {
  const std::vector<OptionDef> defs = OptionsOf(capability.options());
  OptionTexts given = TextsOf(*options);
  for (const Spelling& spelling : spellings) {
    const bool declared =
        std::any_of(defs.begin(), defs.end(),
                    [&](const OptionDef& def) { return def.name == spelling.option; });
    if (spelling.text.empty() || (!declared && !strict)) continue;
    LWQ_ASSIGN_OR_ANNOTATE(const OptionValues said,
                           OptionValues::Make(owner, defs, {{spelling.option, spelling.text}}),
                           "quantize.", spelling.field);
    LWQ_ASSIGN_OR_RETURN(const OptionValues all, OptionValues::Make(owner, defs, given));
    if (given.count(spelling.option) > 0 &&
        all.texts().at(spelling.option) != said.texts().at(spelling.option)) {
      return Failure(reasons::kFieldInvalid,
                     absl::StrCat("quantize.", spelling.field, " and the option ", spelling.option,
                                  " of ", owner, " contradict each other: set one"));
    }
    given[spelling.option] = spelling.text;
  }
  LWQ_ASSIGN_OR_RETURN(const OptionValues values, OptionValues::Make(owner, defs, given));
  TextsToProto(values.texts(), options);
  return absl::OkStatus();
}

}  // namespace

absl::Status FillOptions(const v1::Capability& method, const v1::Capability& scorer, bool strict,
                         v1::QuantizeSpec& spec) {
  LWQ_RETURN_IF_ERROR(Fill(absl::StrCat("method ", method.name()), method, OfMethod(spec), strict,
                           spec.mutable_method_options()));
  return Fill(absl::StrCat("scorer ", scorer.name()), scorer, OfScorer(spec), strict,
              spec.mutable_scorer_options());
}

bool Refines(const v1::QuantizeSpec& spec) {
  return Refines(spec.method_options(), /*otherwise=*/!spec.no_refinement());
}

}  // namespace lwq

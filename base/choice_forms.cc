#include "base/choice_forms.h"

namespace lwq {
namespace {

constexpr absl::string_view kReady[] = {"context", "choices"};
constexpr absl::string_view kPiqa[] = {"goal", "sol1", "sol2"};
constexpr absl::string_view kArcEasy[] = {"question", "choices", "answerKey"};
constexpr absl::string_view kHellaswag[] = {"activity_label", "ctx_a", "ctx_b", "endings"};
constexpr absl::string_view kWinogrande[] = {"sentence", "option1", "option2"};
constexpr ChoiceFormKeys kForms[] = {{"ready", kReady},
                                     {"piqa", kPiqa},
                                     {"arc_easy", kArcEasy},
                                     {"hellaswag", kHellaswag},
                                     {"winogrande", kWinogrande}};

}  // namespace

absl::Span<const ChoiceFormKeys> ChoiceForms() { return kForms; }

}  // namespace lwq

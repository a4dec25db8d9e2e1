#include "base/choice_forms.h"

#include <set>

#include "gtest/gtest.h"

namespace lwq {
namespace {

absl::string_view FormOf(const std::set<absl::string_view>& keys) {
  const int form = ChoiceFormOf([&keys](absl::string_view key) { return keys.count(key) > 0; });
  return form < 0 ? "none" : ChoiceForms()[static_cast<size_t>(form)].name;
}

TEST(ChoiceFormsTest, EachIsToldByAllOfItsKeys) {
  EXPECT_EQ(FormOf({"context", "choices", "answer"}), "ready");
  EXPECT_EQ(FormOf({"goal", "sol1", "sol2"}), "piqa");
  EXPECT_EQ(FormOf({"id", "question", "choices", "answerKey"}), "arc_easy");
  EXPECT_EQ(FormOf({"ind", "activity_label", "ctx_a", "ctx_b", "ctx", "endings"}), "hellaswag");
  EXPECT_EQ(FormOf({"sentence", "option1", "option2", "answer"}), "winogrande");
  EXPECT_EQ(FormOf({"text"}), "none");
  EXPECT_EQ(FormOf({"goal", "sol1"}), "none");
  EXPECT_EQ(FormOf({}), "none");
}

}  // namespace
}  // namespace lwq

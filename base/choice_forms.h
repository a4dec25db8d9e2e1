// By which keys the rows of multiple-choice files are told from rows of text, and from each other:
// known to the client, which sends such files, and to the engine, which reads them.
#pragma once

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace lwq {

struct ChoiceFormKeys {
  absl::string_view name;
  absl::Span<const absl::string_view> keys;  // all of which a row of the form has
};

// In the order in which a row is held against them; the first that fits is its form.
absl::Span<const ChoiceFormKeys> ChoiceForms();

// The index of the form of a row that has the keys that `has(absl::string_view)` says; -1: none.
template <typename Has>
int ChoiceFormOf(const Has& has) {
  const absl::Span<const ChoiceFormKeys> forms = ChoiceForms();
  for (size_t form = 0; form < forms.size(); ++form) {
    bool all = true;
    for (const absl::string_view key : forms[form].keys) all = all && has(key);
    if (all) return static_cast<int>(form);
  }
  return -1;
}

}  // namespace lwq

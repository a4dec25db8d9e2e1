#include "base/option.h"

#include <charconv>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/failure.h"
#include "base/reasons.h"

namespace lwq {
namespace {

// A double is exact in whole numbers up to here.
constexpr double kMostExact = 9007199254740992.0;

std::string ShortestText(double value) {
  char text[64];
  const auto end = std::to_chars(text, text + sizeof(text), value);
  return std::string(text, end.ptr);
}

bool InRange(const OptionDef& def, double value) {
  return std::isfinite(value) && value >= def.minimum && value <= def.maximum;
}

// The canonical text of `text`, or empty where the option cannot have it.
std::string Canonical(const OptionDef& def, const std::string& text) {
  switch (def.type) {
    case OptionDef::Type::kFlag: {
      bool flag = false;
      return absl::SimpleAtob(text, &flag) ? (flag ? "true" : "false") : "";
    }
    case OptionDef::Type::kInteger: {
      int64_t value = 0;
      const bool good = absl::SimpleAtoi(text, &value) &&
                        std::abs(static_cast<double>(value)) <= kMostExact &&
                        InRange(def, static_cast<double>(value));
      return good ? absl::StrCat(value) : "";
    }
    case OptionDef::Type::kNumber: {
      double value = 0;
      const bool good = absl::SimpleAtod(text, &value) && InRange(def, value);
      return good ? ShortestText(value == 0 ? 0 : value) : "";  // -0 is 0
    }
    case OptionDef::Type::kChoice:
      for (const absl::string_view choice : absl::StrSplit(def.choices, ',')) {
        if (choice == text && !text.empty()) return text;
      }
      return "";
  }
  return "";
}

const OptionDef* Find(absl::Span<const OptionDef> defs, absl::string_view name) {
  for (const OptionDef& def : defs) {
    if (def.name == name) return &def;
  }
  return nullptr;
}

absl::Status Unknown(absl::string_view owner, absl::Span<const OptionDef> defs,
                     absl::string_view name) {
  const std::string known =
      defs.empty() ? "it has none"
                   : absl::StrCat("it has ", absl::StrJoin(defs, ", ", [](std::string* out,
                                                                          const OptionDef& def) {
                                    absl::StrAppend(out, def.name);
                                  }));
  return Failure(reasons::kFieldInvalid, absl::StrCat(owner, " has no option \"",
                                                      name.substr(0, 80), "\"; ", known));
}

}  // namespace

std::string OptionRange(const OptionDef& def) {
  switch (def.type) {
    case OptionDef::Type::kFlag:
      return "true or false";
    case OptionDef::Type::kInteger:
      return absl::StrCat("a whole number from ", ShortestText(def.minimum), " to ",
                          ShortestText(def.maximum));
    case OptionDef::Type::kNumber:
      return absl::StrCat("a number from ", ShortestText(def.minimum), " to ",
                          ShortestText(def.maximum));
    case OptionDef::Type::kChoice:
      return absl::StrCat("one of ", absl::StrJoin(absl::StrSplit(def.choices, ','), ", "));
  }
  return "";
}

OptionValues::OptionValues(absl::Span<const OptionDef> defs) {
  for (const OptionDef& def : defs) {
    texts_.emplace(std::string(def.name), std::string(def.default_value));
  }
}

absl::StatusOr<OptionValues> OptionValues::Make(absl::string_view owner,
                                                absl::Span<const OptionDef> defs,
                                                const OptionTexts& given) {
  OptionValues values(defs);
  for (const auto& [name, text] : given) {
    const OptionDef* def = Find(defs, name);
    if (def == nullptr) return Unknown(owner, defs, name);
    std::string canonical = Canonical(*def, text);
    if (canonical.empty()) {
      return Failure(reasons::kFieldInvalid,
                     absl::StrCat("option ", name, " of ", owner, " is \"", text.substr(0, 80),
                                  "\", expected ", OptionRange(*def)));
    }
    values.texts_[name] = std::move(canonical);
  }
  return values;
}

std::string OptionValues::Choice(absl::string_view name) const {
  const auto found = texts_.find(std::string(name));
  return found == texts_.end() ? "" : found->second;
}

bool OptionValues::Flag(absl::string_view name) const {
  bool value = false;
  return absl::SimpleAtob(Choice(name), &value) && value;
}

int64_t OptionValues::Integer(absl::string_view name) const {
  int64_t value = 0;
  return absl::SimpleAtoi(Choice(name), &value) ? value : 0;
}

double OptionValues::Number(absl::string_view name) const {
  double value = 0;
  return absl::SimpleAtod(Choice(name), &value) ? value : 0;
}

}  // namespace lwq

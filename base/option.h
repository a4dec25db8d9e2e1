// Options as data: what can be set of a method, a scorer or an allocator. Each declares its own; what
// is on the command line, what a server refuses and what enters a cache key follows from there.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace lwq {

struct OptionDef {
  enum class Type { kFlag, kInteger, kNumber, kChoice };
  absl::string_view name;  // lower-case words with dashes; in keys: never rename
  Type type = Type::kFlag;
  absl::string_view default_value;    // in its canonical text
  double minimum = 0, maximum = 0;    // of integers and numbers
  absl::string_view choices;          // of a choice: names, commas between
  absl::string_view help;             // one line
};

// By name, in each option's one canonical text: "true" or "false", the shortest decimal, a choice.
using OptionTexts = std::map<std::string, std::string>;

// "on or off", "a whole number from 2 to 8", "one of nearest, gptq".
std::string OptionRange(const OptionDef& def);

// What one thing's options are set to: every one that it declares, and no other. Immutable.
class OptionValues {
 public:
  OptionValues() = default;
  // The defaults.
  explicit OptionValues(absl::Span<const OptionDef> defs);
  // `given`, and the defaults of the rest. INVALID_ARGUMENT "FIELD_INVALID" for an option that is not
  // declared, or a value that it cannot have; `owner` ("method rtn") is for the message.
  static absl::StatusOr<OptionValues> Make(absl::string_view owner,
                                           absl::Span<const OptionDef> defs,
                                           const OptionTexts& given);

  const OptionTexts& texts() const { return texts_; }
  // The value of a declared option; false, 0 or "" of one that is not.
  bool Flag(absl::string_view name) const;
  int64_t Integer(absl::string_view name) const;
  double Number(absl::string_view name) const;
  std::string Choice(absl::string_view name) const;

 private:
  OptionTexts texts_;
};

}  // namespace lwq

#include "worker/engine/gguf/gguf_keys.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <type_traits>
#include <variant>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

// Keys that say nothing about what is computed.
constexpr absl::string_view kHarmless[] = {"vocab_size", "rope.scaling.finetuned",
                                           "tensor_data_layout"};

template <typename T>
constexpr bool kIsWhole = std::is_integral_v<T> && !std::is_same_v<T, bool>;

// A number that fits int64_t; nothing for any other value.
std::optional<int64_t> AsWhole(const GgufValue& value) {
  return std::visit(
      [](const auto& held) -> std::optional<int64_t> {
        using T = std::decay_t<decltype(held)>;
        if constexpr (kIsWhole<T>) {
          if (std::is_same_v<T, uint64_t> &&
              static_cast<uint64_t>(held) > static_cast<uint64_t>(INT64_MAX)) {
            return std::nullopt;
          }
          return static_cast<int64_t>(held);
        } else if constexpr (std::is_same_v<T, std::vector<uint32_t>> ||
                             std::is_same_v<T, std::vector<int32_t>> ||
                             std::is_same_v<T, std::vector<uint64_t>> ||
                             std::is_same_v<T, std::vector<int64_t>>) {
          if (held.empty()) return std::nullopt;
          for (const auto element : held) {
            if (element != held.front()) return std::nullopt;
          }
          return AsWhole(GgufValue(held.front()));
        } else {
          return std::nullopt;
        }
      },
      value);
}

double ShortestDecimal(float value) {
  char text[32];
  const std::to_chars_result end = std::to_chars(text, text + sizeof(text), value);
  double shortest = value;
  if (end.ec != std::errc() ||
      !absl::SimpleAtod(absl::string_view(text, static_cast<size_t>(end.ptr - text)), &shortest)) {
    return value;
  }
  return shortest;
}

std::optional<double> AsNumber(const GgufValue& value) {
  if (const float* number = std::get_if<float>(&value)) return ShortestDecimal(*number);
  if (const double* number = std::get_if<double>(&value)) return *number;
  const std::optional<int64_t> whole = AsWhole(value);
  return whole.has_value() ? std::optional<double>(static_cast<double>(*whole)) : std::nullopt;
}

}  // namespace

const GgufValue* GgufKeys::Find(absl::string_view key) {
  asked_.insert(std::string(key));
  return metadata_.Find(absl::StrCat(prefix_, key));
}

bool GgufKeys::Has(absl::string_view key) { return Find(key) != nullptr; }

absl::Status GgufKeys::Refuse(absl::string_view key, absl::string_view accepted) const {
  return Failure(reasons::kGgufMetadata,
                 absl::StrCat("the key ", prefix_, key, " is ",
                              metadata_.Find(absl::StrCat(prefix_, key)) == nullptr
                                  ? "missing"
                                  : "another value or of another type",
                              ", expected ", accepted));
}

absl::StatusOr<int64_t> GgufKeys::Whole(absl::string_view key, int64_t least, int64_t most,
                                        std::optional<int64_t> fallback) {
  const GgufValue* value = Find(key);
  if (value == nullptr && fallback.has_value()) return *fallback;
  const std::optional<int64_t> whole = value == nullptr ? std::nullopt : AsWhole(*value);
  if (whole.has_value() && *whole >= least && *whole <= most) return *whole;
  return Refuse(
      key, absl::StrCat("a whole number from ", least, " to ", most, ", the same for every layer"));
}

absl::StatusOr<double> GgufKeys::Number(absl::string_view key, double least, double most,
                                        std::optional<double> fallback) {
  const GgufValue* value = Find(key);
  if (value == nullptr && fallback.has_value()) return *fallback;
  const std::optional<double> number = value == nullptr ? std::nullopt : AsNumber(*value);
  // False for NaN.
  if (number.has_value() && *number >= least && *number <= most) return *number;
  return Refuse(key, absl::StrCat("a number from ", least, " to ", most));
}

absl::StatusOr<std::string> GgufKeys::Text(absl::string_view key, absl::string_view fallback) {
  const GgufValue* value = Find(key);
  if (value == nullptr) return std::string(fallback);
  const std::string* text = std::get_if<std::string>(value);
  return text == nullptr ? absl::StatusOr<std::string>(Refuse(key, "a text")) : *text;
}

absl::StatusOr<bool> GgufKeys::Bool(absl::string_view key, bool fallback) {
  const GgufValue* value = Find(key);
  if (value == nullptr) return fallback;
  const bool* held = std::get_if<bool>(value);
  return held == nullptr ? absl::StatusOr<bool>(Refuse(key, "true or false")) : *held;
}

absl::Status GgufKeys::RefuseOthers() const {
  std::vector<std::string> others;
  for (const auto& [name, value] : metadata_.entries()) {
    if (!absl::StartsWith(name, prefix_)) continue;
    const std::string key = name.substr(prefix_.size());
    bool known = asked_.contains(key);
    for (const absl::string_view harmless : kHarmless) known = known || key == harmless;
    if (!known) others.push_back(absl::CHexEscape(name.substr(0, 80)));
    if (others.size() == 5) break;
  }
  if (others.empty()) return absl::OkStatus();
  return Failure(reasons::kGgufUnsupported,
                 absl::StrCat("the GGUF file has keys that lwq does not know for its architecture, "
                              "and which may change what the model computes: ",
                              absl::StrJoin(others, ", "), "; give the model's safetensors files"));
}

}  // namespace lwq

// Reads fields of a config.json with their accepted ranges, so that every family's parser is a list
// of fields and every error names the field, what was found and what is accepted.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq {

// All errors are INVALID_ARGUMENT "CONFIG_INVALID". A field that is null counts as absent. Cheap to
// copy. It remembers which fields were asked for, so that none that matters is passed over; copies
// share that, and one thread reads.
class ConfigReader {
 public:
  // The text must be one JSON object within the limits of a config.json (io/json_file.h).
  static absl::StatusOr<ConfigReader> Parse(absl::string_view json);

  bool Has(absl::string_view field) const;
  // Whether the field is there and null: where a default would be another value.
  bool IsNull(absl::string_view field) const;
  // Without `fallback` the field is required. Bounds are inclusive.
  absl::StatusOr<int64_t> Int(absl::string_view field, int64_t min, int64_t max,
                              std::optional<int64_t> fallback = std::nullopt) const;
  absl::StatusOr<double> Number(absl::string_view field, double min, double max,
                                std::optional<double> fallback = std::nullopt) const;
  absl::StatusOr<bool> Bool(absl::string_view field, std::optional<bool> fallback) const;
  absl::StatusOr<std::string> String(absl::string_view field,
                                     std::optional<std::string> fallback = std::nullopt) const;
  // An array of strings; empty when absent.
  absl::StatusOr<std::vector<std::string>> Strings(absl::string_view field) const;
  // An array of `count` numbers.
  absl::StatusOr<std::vector<double>> Numbers(absl::string_view field, size_t count, double min,
                                              double max) const;
  // An array of whole numbers; empty when absent.
  absl::StatusOr<std::vector<int64_t>> Ints(absl::string_view field, int64_t min,
                                            int64_t max) const;
  // A token id: a number, or a list of them of which the first counts; -1 when absent.
  absl::StatusOr<int64_t> TokenId(absl::string_view field, int64_t vocab_size) const;
  // A nested object; its fields are named "field.inner" in errors.
  absl::StatusOr<ConfigReader> Object(absl::string_view field) const;

  // The error for a field of which the value is not accepted.
  absl::Status Refuse(absl::string_view field, absl::string_view accepted) const;

  // The fields, also of nested objects, that nobody asked for although they may change what the
  // model computes: "logit_scale: 0.5". Not among them are fields that are known not to
  // (config_fields.h), and values that switch nothing on: null, false, empty.
  std::vector<std::string> NotUnderstood() const;

 private:
  struct Json;
  ConfigReader(std::shared_ptr<Json> json, std::string prefix);
  std::shared_ptr<Json> json_;
  std::string prefix_;
};

}  // namespace lwq

// Reads the keys of one architecture with their accepted ranges, and knows which were asked for, so
// that a key which may change what a model computes is never passed over.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/gguf/gguf_value.h"

namespace lwq {

// Not thread-safe. `metadata` outlives it. Keys are named without "<architecture>.". Errors:
// DATA_LOSS "GGUF_METADATA" naming the key, found and accepted.
class GgufKeys {
 public:
  GgufKeys(const GgufMetadata& metadata, absl::string_view architecture)
      : metadata_(metadata), prefix_(std::string(architecture) + ".") {}

  bool Has(absl::string_view key);
  // A whole number of any width, or a list of one number again and again (some writers give one for
  // each layer). Where the key is missing `fallback`, without one an error.
  absl::StatusOr<int64_t> Whole(absl::string_view key, int64_t least, int64_t most,
                                std::optional<int64_t> fallback = std::nullopt);
  // As the shortest decimal number that F32 rounds to what is stored: 1e-05 is 0.00001.
  absl::StatusOr<double> Number(absl::string_view key, double least, double most,
                                std::optional<double> fallback = std::nullopt);
  absl::StatusOr<std::string> Text(absl::string_view key, absl::string_view fallback);
  absl::StatusOr<bool> Bool(absl::string_view key, bool fallback);
  // UNIMPLEMENTED "GGUF_UNSUPPORTED" naming the architecture's keys that nobody asked for.
  absl::Status RefuseOthers() const;

  absl::Status Refuse(absl::string_view key, absl::string_view accepted) const;

 private:
  const GgufValue* Find(absl::string_view key);

  const GgufMetadata& metadata_;
  const std::string prefix_;
  absl::flat_hash_set<std::string> asked_;
};

}  // namespace lwq

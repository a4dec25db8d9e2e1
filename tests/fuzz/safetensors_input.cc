#include "absl/strings/str_cat.h"
#include "tests/fuzz/inputs.h"
#include "tests/fuzz/promise.h"
#include "worker/engine/io/safetensors.h"

namespace lwq::testing {

absl::StatusOr<bool> TrySafetensors(absl::string_view input) {
  const absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(
      absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(input.data()), input.size()), "fuzzed");
  if (!header.ok()) {
    if (absl::Status typed = ExpectTyped(header.status()); !typed.ok()) return typed;
    return false;
  }
  // Tensors cover the data: no hole, no overlap, nothing outside.
  int64_t end = 0;
  for (const SafetensorsHeader::Entry& entry : header->entries) {
    if (entry.begin != end || entry.end < entry.begin) {
      return Broken(absl::StrCat("tensor ", entry.name, " begins at ", entry.begin, ", not ", end));
    }
    end = entry.end;
  }
  if (header->data_offset + end != static_cast<int64_t>(input.size())) {
    return Broken(absl::StrCat("tensors end at ", end, " of ", input.size()));
  }
  return true;
}

}  // namespace lwq::testing

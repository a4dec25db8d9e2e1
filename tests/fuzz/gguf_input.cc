#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "tests/fuzz/inputs.h"
#include "tests/fuzz/promise.h"
#include "worker/engine/gguf/gguf_reader.h"

namespace lwq::testing {
namespace {

// The format has one way to write a thing.
absl::Status ExpectSameLayout(const GgufHeader& header, absl::string_view input) {
  const absl::StatusOr<GgufLayout> again = LayOutGguf(header.metadata, header.tensors);
  if (!again.ok()) return Broken(absl::StrCat("not laid out: ", again.status().ToString()));
  if (static_cast<int64_t>(again->header.size()) != header.data_offset) {
    return Broken(absl::StrCat("header of ", again->header.size(), ", not ", header.data_offset));
  }
  if (again->offsets != header.offsets) return Broken("other offsets");
  // The version may be 2, and padding may be anything.
  const size_t padding = static_cast<size_t>(again->alignment);
  const size_t compared = again->header.size() - std::min(padding, again->header.size());
  for (size_t at = 8; at < compared; ++at) {
    if (again->header[at] != input[at]) return Broken(absl::StrCat("another byte at ", at));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<bool> TryGguf(absl::string_view input) {
  const absl::StatusOr<GgufHeader> header = ParseGgufHeader(
      absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(input.data()), input.size()), "fuzzed");
  if (!header.ok()) {
    LWQ_RETURN_IF_ERROR(ExpectTyped(header.status()));
    return false;
  }
  for (size_t t = 0; t < header->tensors.size(); ++t) {
    if (header->data_offset + header->offsets[t] + header->tensors[t].size_bytes() >
        static_cast<int64_t>(input.size())) {
      return Broken(absl::StrCat("tensor ", t, " lies outside"));
    }
  }
  LWQ_RETURN_IF_ERROR(ExpectSameLayout(*header, input));
  return true;
}

}  // namespace lwq::testing

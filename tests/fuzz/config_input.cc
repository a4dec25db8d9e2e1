#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "tests/fuzz/inputs.h"
#include "tests/fuzz/promise.h"
#include "worker/engine/artifact/gguf_model_keys.h"
#include "worker/engine/artifact/quantization_config.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/families.h"
#include "worker/engine/model/rope.h"

namespace lwq::testing {
namespace {

absl::Status ExpectSane(const DecoderSpec& spec) {
  if (spec.num_layers() <= 0 || spec.hidden_size <= 0 || spec.vocab_size <= 0) {
    return Broken("a size that is not positive");
  }
  const RopeSpec& rope = spec.layers.back().attention.rope;
  const int64_t length = RopeLength(rope, 2 * spec.max_positions);
  for (const float frequency : InverseFrequencies(rope, spec.head_dim, length)) {
    if (!std::isfinite(frequency)) return Broken("a rotation that is not finite");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<bool> TryConfig(absl::string_view input) {
  bool accepted = false;
  for (const ModelFamilyDef* family : ModelFamilies()) {
    const absl::StatusOr<DecoderSpec> spec = ParseConfig(*family, input);
    LWQ_RETURN_IF_ERROR(spec.ok() ? ExpectSane(*spec) : ExpectTyped(spec.status()));
    accepted = accepted || spec.ok();
  }
  const absl::StatusOr<DecoderSpec> spec = ParseDecoderSpec(input);
  if (!spec.ok()) {
    LWQ_RETURN_IF_ERROR(ExpectTyped(spec.status()));
    return accepted;
  }
  const absl::Status gguf = MakeGgufModel(*spec, "").status();
  if (!gguf.ok()) LWQ_RETURN_IF_ERROR(ExpectTyped(gguf));
  return true;
}

absl::StatusOr<bool> TryQuantizationConfig(absl::string_view input) {
  const auto declared = ReadQuantizationConfig(std::string(input), "fuzzed");
  if (!declared.ok()) {
    LWQ_RETURN_IF_ERROR(ExpectTyped(declared.status()));
    return false;
  }
  for (const WeightFormat* format : declared->formats) {
    const auto* grid = format->grid();
    if (grid != nullptr && (grid->bits() < 1 || grid->bits() > 8 || grid->group_size() < 0)) {
      return Broken(
          absl::StrCat("a grid of ", grid->bits(), " bits in groups of ", grid->group_size()));
    }
  }
  return true;
}

}  // namespace lwq::testing

// What TakeInventory of decoder_spec.h does, of a model whose linears are not all stored as matrices.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/engine/model/decoder_spec.h"

namespace lwq {

// `tensors` are those of the model, as if nothing were quantized; `where` is for messages.
absl::StatusOr<ModelInventory> TakeInventoryOf(const DecoderSpec& spec,
                                               absl::Span<const TensorSpec> tensors,
                                               const std::string& where);

}  // namespace lwq

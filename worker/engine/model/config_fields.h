// Fields of config.json that no family's parser has to ask for.
#pragma once

#include "absl/strings/string_view.h"

namespace lwq {

// Whether the field says nothing of what the model computes from tokens to logits: bookkeeping,
// training, sampling, token ids, limits of other programs.
bool IsHarmlessField(absl::string_view field);

}  // namespace lwq

// Reads tokenizer.json into the steps of a pipeline. Parts that are not known are refused, never
// left out.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/tokenizer/pipeline_tokenizer.h"
#include "worker/engine/tokenizer/tokenizer_config.h"

namespace lwq {

// `config` brings tokens that only tokenizer_config.json adds. "TOKENIZER_UNSUPPORTED" names the
// part, "TOKENIZER_INVALID" the damage.
absl::StatusOr<TokenizerPipeline> ReadTokenizerJson(absl::string_view text,
                                                    const TokenizerConfig& config);

}  // namespace lwq

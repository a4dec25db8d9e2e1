#include "tests/fuzz/inputs.h"

namespace lwq::testing {

absl::Span<const FuzzInput> FuzzInputs() {
  static constexpr FuzzInput kInputs[] = {{"safetensors", &TrySafetensors},
                                          {"gguf", &TryGguf},
                                          {"gguf_model", &TryGgufModel},
                                          {"config", &TryConfig},
                                          {"quantization_config", &TryQuantizationConfig},
                                          {"tokenizer_json", &TryTokenizerJson},
                                          {"sentencepiece", &TrySentencePiece},
                                          {"tiktoken", &TryTiktoken}};
  return kInputs;
}

}  // namespace lwq::testing

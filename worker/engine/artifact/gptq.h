// A quantized linear to and from the tensors of GPTQ checkpoints (AutoGPTQ's and GPTQModel's layout):
// qweight and scales are the codes and scales with rows and columns exchanged, qzeros the zero points,
// g_idx the group of each input. docs/formats/gptq.md.
#pragma once

#include "worker/engine/artifact/linear_coding.h"

namespace lwq {

// Of v1, which stores zero points less one ("checkpoint_format": "gptq"): what lwq writes.
const LinearCoding& GptqCoding();
// Of v2, which stores them as they are ("gptq_v2").
const LinearCoding& GptqV2Coding();

}  // namespace lwq

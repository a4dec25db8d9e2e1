// Re-encoding an artifact without a server: what `lwq-worker --convert` does and `lwqctl artifact convert`
// shows.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace lwq {

struct ConvertRequest {
  std::string source;     // directory of the artifact
  std::string format;     // "gptq", "compressed-tensors", "gguf"
  std::string directory;  // for the new one; empty, or not there
  bool round_scales = false;
};

// Converts, and proves what was written. `json` gets one object of what was done, or of why it was not:
// "code", "reason" and "message". Whether it was done.
bool RunConvert(const ConvertRequest& request, std::string* json);

}  // namespace lwq

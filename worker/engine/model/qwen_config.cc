#include "worker/engine/model/qwen_config.h"

#include "base/status_macros.h"

namespace lwq {

absl::Status ReadQwenAttention(const ConfigReader& config, LlamaShapedConfig& shape) {
  LWQ_RETURN_IF_ERROR(ReadSharedRope(config, shape.rope_defaults(), shape));
  LWQ_ASSIGN_OR_RETURN(const bool use_window, config.Bool("use_sliding_window", false));
  LWQ_ASSIGN_OR_RETURN(const int64_t window, ReadWindow(config, 4096));
  LWQ_ASSIGN_OR_RETURN(const int64_t first, config.Int("max_window_layers", 0, INT32_MAX, 28));
  const bool windows = use_window && window > 0;
  return SetWindows(
             config, windows ? window : 0, [&](int layer) { return windows && layer >= first; },
             shape)
      .status();
}

}  // namespace lwq

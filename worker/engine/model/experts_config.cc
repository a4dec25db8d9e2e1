#include "worker/engine/model/experts_config.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int64_t kMaxExperts = 1024;
constexpr int64_t kMaxExpertsInAll = 65536;  // each has a description of its own
constexpr int64_t kMaxExpertIntermediate = 1 << 20;

}  // namespace

absl::StatusOr<LlamaExperts> ReadExperts(const ConfigReader& config, int64_t num_experts,
                                         int64_t per_token, size_t num_layers) {
  LlamaExperts experts;
  for (const char* field : {"num_local_experts", "num_experts"}) {
    if (!config.Has(field)) continue;
    LWQ_ASSIGN_OR_RETURN(const int64_t found, config.Int(field, 2, kMaxExperts));
    if (experts.num_experts != 0 && experts.num_experts != found) {
      return config.Refuse(field, absl::StrCat(experts.num_experts, ", as num_local_experts"));
    }
    experts.num_experts = static_cast<int>(found);
  }
  if (experts.num_experts == 0) experts.num_experts = static_cast<int>(num_experts);
  const int64_t most = experts.num_experts;
  if (most * static_cast<int64_t>(num_layers) > kMaxExpertsInAll) {
    return config.Refuse("num_hidden_layers",
                         absl::StrCat("up to ", kMaxExpertsInAll, " experts in all layers"));
  }
  LWQ_ASSIGN_OR_RETURN(const int64_t wanted,
                       config.Int("num_experts_per_tok", 1, most, std::min(per_token, most)));
  experts.per_token = static_cast<int>(wanted);
  return experts;
}

absl::Status ReadQwenExperts(const ConfigReader& config, int64_t num_experts, int64_t per_token,
                             int64_t intermediate_size, LlamaShapedConfig& shape) {
  LWQ_ASSIGN_OR_RETURN(LlamaExperts experts,
                       ReadExperts(config, num_experts, per_token, shape.attention.size()));
  LWQ_ASSIGN_OR_RETURN(
      experts.intermediate_size,
      config.Int("moe_intermediate_size", 1, kMaxExpertIntermediate, intermediate_size));
  LWQ_ASSIGN_OR_RETURN(experts.normalized, config.Bool("norm_topk_prob", false));
  const int64_t num_layers = static_cast<int64_t>(shape.attention.size());
  LWQ_ASSIGN_OR_RETURN(const int64_t step, config.Int("decoder_sparse_step", 1, INT32_MAX, 1));
  LWQ_ASSIGN_OR_RETURN(const std::vector<int64_t> dense,
                       config.Ints("mlp_only_layers", 0, num_layers - 1));
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const bool named = std::find(dense.begin(), dense.end(), layer) != dense.end();
    experts.layers.push_back(!named && (layer + 1) % step == 0);
  }
  shape.experts = std::move(experts);
  return absl::OkStatus();
}

}  // namespace lwq

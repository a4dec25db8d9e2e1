#include "server/dispatch/job_defaults.h"

#include <algorithm>

namespace lwq {
namespace {

constexpr char kBuiltinDataset[] = "datasets/builtin-mixed";
constexpr char kBuiltinHeldOut[] = "datasets/builtin-held-out";
constexpr int64_t kBuiltinHeldOutTokens = 4096;

}  // namespace

void FillDefaults(v1::Evaluation& evaluation) {
  if (evaluation.text_tokens() == 0) evaluation.set_text_tokens(16384);
  if (evaluation.sequence_length() == 0) evaluation.set_sequence_length(256);
  if (evaluation.bos().empty()) evaluation.set_bos("tokenizer");
}

void FillDefaults(const v1::ModelManifest& manifest, v1::QuantizeSpec& spec) {
  if (spec.method().empty()) spec.set_method("gptq");
  if (spec.scorer().empty()) spec.set_scorer("kl");
  if (spec.allocator().empty()) spec.set_allocator("lwq");
  if (spec.profile().empty()) spec.set_profile("vllm-lowbit");
  if (spec.compute().empty()) spec.set_compute("f32");
  if (spec.group_sizes().empty()) spec.add_group_sizes(128);
  v1::Calibration& calibration = *spec.mutable_calibration();
  if (calibration.dataset().empty()) calibration.set_dataset(kBuiltinDataset);
  if (calibration.num_tokens() == 0) calibration.set_num_tokens(32768);
  if (calibration.score_tokens() == 0) calibration.set_score_tokens(1024);
  if (calibration.trial_tokens() == 0) calibration.set_trial_tokens(4096);
  if (calibration.judge_tokens() == 0) calibration.set_judge_tokens(4096);
  // No use reads more text than the quantizer: a small job stays small.
  const int64_t most = calibration.num_tokens();
  calibration.set_score_tokens(std::min(calibration.score_tokens(), most));
  calibration.set_trial_tokens(std::min(calibration.trial_tokens(), most));
  calibration.set_judge_tokens(std::min(calibration.judge_tokens(), most));
  if (calibration.sequence_length() == 0) {
    const int64_t longest = manifest.inventory().max_positions();
    calibration.set_sequence_length(longest > 0 ? std::min<int64_t>(512, longest) : 512);
  }
  // A job says how good its model is without being asked.
  if (!spec.has_evaluation()) {
    spec.mutable_evaluation()->set_text_dataset(kBuiltinHeldOut);
    spec.mutable_evaluation()->set_text_tokens(kBuiltinHeldOutTokens);
  }
  FillDefaults(*spec.mutable_evaluation());
}

}  // namespace lwq

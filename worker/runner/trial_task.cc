// Measures a plan before anything is written: the source with the plan's unit blobs in place of
// its linears, on held-out text, against the source's own predictions, which calibration left.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/artifact/artifact_weights.h"
#include "worker/engine/eval/perplexity.h"
#include "worker/engine/score/swap_kl.h"
#include "worker/engine/tensor/mapped_matrix.h"
#include "worker/runner/artifact_input.h"

namespace lwq {
namespace {

// Tokens that are averaged before plans are compared: neighbours are not independent.
constexpr size_t kBlockTokens = 128;

// Blocks of the same size, give or take a token, so that each weighs the same.
void AddBlocks(const std::vector<double>& kl, v1::TrialResult& result) {
  const size_t num_blocks = std::max<size_t>(kl.size() / kBlockTokens, 1);
  for (size_t block = 0; block < num_blocks; ++block) {
    const size_t begin = block * kl.size() / num_blocks;
    const size_t end = (block + 1) * kl.size() / num_blocks;
    double sum = 0;
    for (size_t i = begin; i < end; ++i) sum += kl[i];
    result.add_block_kl(sum / static_cast<double>(end - begin));
  }
}

// Of the weight that makes the logits: the head, or the embedding that is tied to it.
bool QuantizesHead(const OpenedModel& model, const Plan& plan) {
  const Place place = model.spec.head.tied ? Place::Embedding() : Place::Head();
  for (size_t u = 0; u < plan.size(); ++u) {
    if (model.inventory.units[u].place == place && !plan[u]->dense()) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<v1::TaskOutput> RunTrial(const TaskContext& context, const v1::TrialTask& task) {
  LWQ_ASSIGN_OR_RETURN(ComputeType compute, ParseComputeType(task.compute()));
  LWQ_ASSIGN_OR_RETURN(auto planned, OpenPlannedArtifact(context, task.model(), task.plan()));
  const OpenedModel& model = planned->model;
  LWQ_ASSIGN_OR_RETURN(auto weights, MakePlanWeights(model.weights.get(), model.inventory,
                                                     planned->plan, planned->blob_set,
                                                     planned->edits_or_null()));
  LWQ_ASSIGN_OR_RETURN(auto source,
                       Decoder::Create(model.spec, model.weights.get(), context.device, compute));
  LWQ_ASSIGN_OR_RETURN(auto candidate,
                       Decoder::Create(planned->spec(), weights.get(), context.device, compute));
  LWQ_ASSIGN_OR_RETURN(const auto text,
                       LoadCalibration(context, task.model(), model.spec, task.calibration()));
  const HeldOut held_out(*text, task.calibration().num_tokens(), task.held_out());
  const HeldOutPart part = held_out.Part(task.judge() ? HeldOutUse::kJudge : HeldOutUse::kTrial);
  const TokenBatch& batch = part.batch;

  const std::string scratch = context.blobs->ScratchDirectory();
  const int64_t num_tokens = batch.num_tokens();
  LWQ_ASSIGN_OR_RETURN(MappedMatrix source_final,
                       MappedMatrix::Create(scratch, num_tokens, model.spec.hidden_size));
  LWQ_ASSIGN_OR_RETURN(std::string path, FetchInputBlob(context, "calibrate",
                                                        HiddenBlobName(model.spec.num_layers())));
  LWQ_RETURN_IF_ERROR(
      ReadRowsBlob(path, held_out.all().num_tokens(), part.first_row, source_final.view()));

  LWQ_ASSIGN_OR_RETURN(MappedMatrix hidden,
                       MappedMatrix::Create(scratch, num_tokens, model.spec.hidden_size));
  const int num_layers = candidate->spec().num_layers();
  LWQ_RETURN_IF_ERROR(RunAllLayers(*candidate, batch, hidden.view(), [&](int layer) {
    return context.progress(static_cast<double>(layer) / (num_layers + 1),
                            absl::StrCat("layer ", layer + 1, "/", num_layers));
  }));
  LWQ_ASSIGN_OR_RETURN(const HeadWeights source_head, source->LoadHead());
  HeadWeights head = source_head;  // heads are large: held twice only where they differ
  if (QuantizesHead(model, planned->plan)) {
    LWQ_ASSIGN_OR_RETURN(head, candidate->LoadHead());
  }
  std::vector<double> kl(static_cast<size_t>(num_tokens));
  const HeadWeights* const heads[] = {&head};
  const ConstMatrixView states[] = {hidden.view()};
  const absl::Span<double> results[] = {absl::MakeSpan(kl)};
  LWQ_RETURN_IF_ERROR(HeadKl(*source, source_head, source_final.view(), heads, states, results));

  v1::TaskOutput output;
  AddBlocks(kl, *output.mutable_trial());
  const DivergenceResult divergence = SummarizeDivergence(std::move(kl), /*num_agreeing=*/0);
  output.mutable_trial()->set_kl(divergence.mean);
  output.mutable_trial()->set_standard_error(divergence.standard_error);
  return output;
}

}  // namespace lwq

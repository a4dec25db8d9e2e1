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
#include "worker/engine/model/checkpoint_weights.h"
#include "worker/engine/model/head_reading.h"
#include "worker/engine/tensor/mapped_matrix.h"
#include "worker/runner/artifact_input.h"
#include "worker/runner/task_memory.h"

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
  const auto kept = MakeKeptWeights(model.checkpoint.get());
  LWQ_ASSIGN_OR_RETURN(auto weights, MakePlanWeights(kept.get(), model.inventory, planned->plan,
                                                     planned->blob_set, planned->edits_or_null()));
  LWQ_ASSIGN_OR_RETURN(auto source, OpenDecoder(context, model.spec, model.weights.get(), compute,
                                                task.chunk_tokens()));
  LWQ_ASSIGN_OR_RETURN(auto candidate, OpenDecoder(context, planned->spec(), weights.get(), compute,
                                                   task.chunk_tokens()));
  MemoryQuestion question;
  question.bf16 = compute == ComputeType::kBF16;
  UseSpareMemory(context, "trial", model.inventory, question, *candidate);
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
  const HeadRows source_head = HeadOf(*source), head = HeadOf(*candidate);
  HeadPass pass;
  // A head that is not quantized is the source's: what is prepared of it serves both.
  pass.sides = {
      {source.get(), &source_head, source_final.view()},
      {candidate.get(), QuantizesHead(model, planned->plan) ? &head : &source_head, hidden.view()}};
  LWQ_ASSIGN_OR_RETURN(HeadReading reading, ReadHead(pass));
  std::vector<double> kl = std::move(reading.kl[0]);

  v1::TaskOutput output;
  AddBlocks(kl, *output.mutable_trial());
  const DivergenceResult divergence = SummarizeDivergence(std::move(kl), /*num_agreeing=*/0);
  output.mutable_trial()->set_kl(divergence.mean);
  output.mutable_trial()->set_standard_error(divergence.standard_error);
  return output;
}

}  // namespace lwq

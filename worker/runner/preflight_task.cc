// Runs a few tokens through the largest layer and factors the statistics of the widest linear in
// the first minute of a job. What would not fit is learnt then and not after forty minutes: the
// forecast is held against the ceiling before, and what was measured after.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/memory_usage.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "records/option_records.h"
#include "worker/engine/format/weight_format.h"
#include "worker/engine/quant/quantizer.h"
#include "worker/runner/task_input.h"

namespace lwq {
namespace {

constexpr int64_t kTokens = 256;

// The linear with the widest input decides the size of the second-order information.
LinearShape WidestLinear(const ModelInventory& inventory) {
  LinearShape widest;
  for (const AllocationUnit& unit : inventory.units) {
    for (const LinearShape& linear : unit.linears) {
      if (linear.in_features > widest.in_features) widest = linear;
    }
  }
  return widest;
}

// The first of those with the most weights.
int LargestLayer(const ModelInventory& inventory) {
  std::vector<int64_t> weights(static_cast<size_t>(inventory.num_layers), 0);
  for (const AllocationUnit& unit : inventory.units) {
    if (unit.place.in_layer()) {
      weights[static_cast<size_t>(unit.place.layer)] += unit.num_weights();
    }
  }
  return static_cast<int>(std::max_element(weights.begin(), weights.end()) - weights.begin());
}

absl::Status RunForward(const TaskContext& context, const OpenedModel& model, ComputeType compute) {
  LWQ_ASSIGN_OR_RETURN(auto decoder,
                       Decoder::Create(model.spec, model.weights.get(), context.device, compute));
  std::vector<int32_t> tokens(std::min(kTokens, model.spec.max_positions));
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>(i * 37 % model.spec.vocab_size);
  }
  TokenBatch batch;
  batch.Add(tokens);
  Matrix hidden(batch.num_tokens(), model.spec.hidden_size);
  LWQ_RETURN_IF_ERROR(decoder->Embed(batch.tokens, hidden.view()));
  LWQ_ASSIGN_OR_RETURN(LayerWeights layer, decoder->LoadLayer(LargestLayer(model.inventory)));
  return decoder->RunLayer(layer, batch, hidden.view());
}

absl::Status RunFactor(const TaskContext& context, const LinearShape& linear, bool refinement) {
  LWQ_ASSIGN_OR_RETURN(auto gram,
                       context.device->NewMatrix(linear.in_features, linear.in_features));
  LWQ_RETURN_IF_ERROR(context.device->FillZero(gram->view()));
  const std::vector<float> ones(static_cast<size_t>(linear.in_features), 1.0f);
  LWQ_RETURN_IF_ERROR(
      context.device->Upload({ones.data(), linear.in_features, 1, 1}, gram->view().Diagonal()));
  return InputStatistics::Create(context.device, std::move(gram), 1, {.refinement = refinement})
      .status();
}

}  // namespace

absl::StatusOr<v1::TaskOutput> RunPreflight(const TaskContext& context,
                                            const v1::PreflightTask& task) {
  const absl::Time start = absl::Now();
  LWQ_ASSIGN_OR_RETURN(OpenedModel model, OpenModel(task.model()));
  LWQ_ASSIGN_OR_RETURN(ComputeType compute, ParseComputeType(task.recipe().compute()));
  if (!context.device->Supports(compute)) {
    return absl::UnimplementedError(absl::StrCat("device ", context.device->Description(),
                                                 " cannot compute in ", NameOf(compute)));
  }
  LWQ_ASSIGN_OR_RETURN(const QuantizerDef* def, FindQuantizer(task.recipe().method()));
  for (const std::string& id : task.formats()) LWQ_RETURN_IF_ERROR(FindWeightFormat(id).status());
  const int64_t ceiling = task.memory_bytes() > 0 ? task.memory_bytes() : context.memory_bytes;
  if (ceiling > 0 && task.forecast_bytes() > ceiling) {
    return Failure(reasons::kMemoryInfeasible,
                   absl::StrCat("the job is forecast to take ", task.forecast_bytes(),
                                " bytes of memory, the ceiling is ", ceiling));
  }
  LWQ_RETURN_IF_ERROR(context.progress(0.1, "forward of one layer"));
  LWQ_RETURN_IF_ERROR(RunForward(context, model, compute));
  const int64_t measured = AnonymousMemoryBytes();
  // What the server's forecast counts: second moments that are factored, not all evidence.
  if (absl::c_linear_search(def->evidence, "second-moments")) {
    const LinearShape widest = WidestLinear(model.inventory);
    LWQ_RETURN_IF_ERROR(context.progress(0.5, absl::StrCat("factor of ", widest.module)));
    LWQ_RETURN_IF_ERROR(RunFactor(context, widest, Refines(task.recipe().options())));
  }
  v1::TaskOutput output;
  v1::PreflightResult& result = *output.mutable_preflight();
  result.set_measured_bytes(std::max(measured, AnonymousMemoryBytes()));
  result.set_forecast_bytes(task.forecast_bytes());
  result.set_seconds(absl::ToDoubleSeconds(absl::Now() - start));
  if (ceiling > 0 && result.measured_bytes() > ceiling) {
    return Failure(reasons::kMemoryInfeasible,
                   absl::StrCat("one layer took ", result.measured_bytes(),
                                " bytes of memory, the ceiling is ", ceiling));
  }
  return output;
}

}  // namespace lwq

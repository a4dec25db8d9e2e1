// PlanJob: what a job would do, without a job.
#include <algorithm>
#include <vector>

#include "base/hash.h"
#include "base/status_macros.h"
#include "server/dispatch/job_defaults.h"
#include "server/dispatch/job_options.h"
#include "server/dispatch/text_warnings.h"
#include "server/dispatch/work_estimate.h"
#include "server/service/job_service.h"
#include "server/service/tenancy.h"
#include "server/service/validation.h"

namespace lwq {
namespace {

// A stage of a job, and what the cache has of it.
struct KnownWork {
  JobGraph graph;
  CachedResults cached;
};

// The furthest stage that the cache leads to: the last, one of trials that nobody ran yet, or the
// first. `plan` becomes what is known of the plan there.
absl::StatusOr<KnownWork> FollowPlan(Scheduler& scheduler, const GraphSource& source,
                                     v1::PlanSummary& plan) {
  KnownWork work;
  work.graph = scheduler.BuildFirst(source);
  LWQ_ASSIGN_OR_RETURN(work.cached, scheduler.LookUp(work.graph));
  std::vector<v1::ScoreResult> scores;
  for (const TaskNode& node : work.graph.tasks) {
    if (node.kind() != "score") continue;
    auto score = work.cached.find(node.key());
    if (score == work.cached.end()) return work;
    scores.push_back(score->second.score());
  }
  std::vector<v1::PlanTrial> trials;
  for (;;) {
    LWQ_ASSIGN_OR_RETURN(
        const PlanStep step,
        NextPlanStep(source.input.spec.quantize(), source.model.manifest(), scores, trials));
    const bool decided = step.trials.empty();
    plan = step.plan;
    work.graph = decided ? BuildLastStage(source.input, step.plan)
                         : BuildTrialStage(source.input, step.formats, step.judge);
    LWQ_ASSIGN_OR_RETURN(work.cached, scheduler.LookUp(work.graph));
    if (decided) return work;
    for (size_t i = 0; i < step.trials.size(); ++i) {
      auto trial = work.cached.find(work.graph.plan_tasks[i]);
      if (trial == work.cached.end()) return work;
      trials.push_back(step.trials[i]);
      LWQ_RETURN_IF_ERROR(RecordTrial(trial->second, trials.back()));
    }
  }
}

// What a job would compute, and for how long, if it were submitted now: submits it to a draft that
// is thrown away.
absl::StatusOr<v1::WorkForecast> DryRun(Scheduler& scheduler, const std::string& tenant,
                                        const v1::JobSpec& spec, const KnownWork& work) {
  SubmitEvent event;
  event.job.set_name("jobs/dry-run");
  *event.job.mutable_spec() = spec;
  event.job.set_tenant(tenant);
  event.graph = work.graph;
  event.cached = work.cached;
  v1::WorkForecast forecast;
  absl::Status submitted;
  scheduler.View([&](const DispatchState& state) {
    Draft draft(state, scheduler.Now());
    const std::string name = event.job.name();
    submitted = SubmitJob(draft, std::move(event));
    if (const v1::JobRecord* job = draft.FindJob(name)) forecast = job->job().work();
  });
  LWQ_RETURN_IF_ERROR(submitted);
  return forecast;
}

}  // namespace

absl::Status JobServiceImpl::DoPlan(const Caller& caller, const v1::PlanJobRequest& request,
                                    v1::PlanJobResponse& response) {
  Scheduler& scheduler = *env_.scheduler;
  v1::JobSpec spec;
  *spec.mutable_quantize() = request.spec();
  FieldErrors errors;
  CheckSpec(spec, errors);
  LWQ_RETURN_IF_ERROR(errors.status());
  LWQ_ASSIGN_OR_RETURN(const v1::Model model, SeenModel(scheduler, caller, request.spec().model()));
  LWQ_RETURN_IF_ERROR(CheckUsable(scheduler, TenantOf(model), spec));
  FillDefaults(model.manifest(), *spec.mutable_quantize());
  LWQ_ASSIGN_OR_RETURN(auto source, scheduler.MakeSource(RandomHex(8), spec));
  LWQ_RETURN_IF_ERROR(FillOptions(source->input.method, source->input.scorer, /*strict=*/true,
                                  *spec.mutable_quantize()));
  LWQ_ASSIGN_OR_RETURN(
      const Feasibility feasible,
      CheckFeasibility(spec.quantize(), source->model.manifest(), MemoryOf(source->input)));
  response.set_smallest_bytes(feasible.smallest_bytes);
  response.set_largest_bytes(feasible.largest_bytes);
  response.set_memory_bytes(feasible.memory.total_bytes);
  for (const std::string& warning : feasible.warnings) response.add_warnings(warning);
  for (const std::string& warning : TextWarnings(source->input)) response.add_warnings(warning);
  response.mutable_plan()->set_budget_bytes(feasible.budget_bytes);
  response.mutable_plan()->set_source_bytes(source->model.manifest().weight_bytes());
  LWQ_ASSIGN_OR_RETURN(const KnownWork work,
                       FollowPlan(scheduler, *source, *response.mutable_plan()));
  response.set_tasks_total(static_cast<int>(work.graph.tasks.size()) + work.graph.expected_tasks +
                           1);
  for (const TaskNode& node : work.graph.tasks) {
    bool hit = work.cached.count(node.key()) > 0;
    if (!node.product_keys().empty()) {
      hit = std::all_of(node.product_keys().begin(), node.product_keys().end(),
                        [&](const auto& product) { return work.cached.count(product.second) > 0; });
    }
    response.set_tasks_cached(response.tasks_cached() + (hit ? 1 : 0));
  }
  LWQ_ASSIGN_OR_RETURN(*response.mutable_work(), DryRun(scheduler, TenantOf(model), spec, work));
  return absl::OkStatus();
}

}  // namespace lwq

#include "server/service/job_service.h"

#include <algorithm>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/failpoint.h"
#include "base/failure_details.h"
#include "base/hash.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/dispatch/job_defaults.h"
#include "server/dispatch/job_options.h"
#include "server/dispatch/progress.h"
#include "server/dispatch/text_warnings.h"
#include "server/dispatch/work_estimate.h"
#include "server/service/deletion.h"
#include "server/service/model_directory.h"
#include "server/service/quotas.h"
#include "server/service/record_writes.h"
#include "server/service/request_log.h"
#include "server/service/tenancy.h"
#include "server/service/validation.h"

namespace lwq {
namespace {

constexpr char kServiceName[] = "JobService";
constexpr int64_t kMaxQueuedJobs = 20'000;

// Sorts by time of creation, and no two are equal.
std::string NewJobId(int64_t now_us) { return absl::StrFormat("j-%013x%s", now_us, RandomHex(5)); }

// RESOURCE_EXHAUSTED "MEMORY_INFEASIBLE" when every worker keeps to less: such a job would wait for
// ever.
absl::Status CheckWorkerMemory(Scheduler& scheduler, int64_t needed) {
  int64_t most = 0;
  bool enough = true;
  scheduler.View([&](const DispatchState& state) {
    enough = state.workers().empty();
    for (const auto& [id, worker] : state.workers()) {
      const int64_t ceiling = worker.registration().memory_bytes();
      enough = enough || ceiling == 0 || ceiling >= needed;
      most = std::max(most, ceiling);
    }
  });
  if (enough) return absl::OkStatus();
  absl::Status status =
      Failure(reasons::kMemoryInfeasible,
              absl::StrCat("the job needs ", needed,
                           " bytes of a worker's memory, and the largest worker keeps to ", most,
                           ": start one with more, or give the job that ceiling"));
  AddFact("needed_bytes", absl::StrCat(needed), &status);
  AddFact("largest_worker_bytes", absl::StrCat(most), &status);
  return status;
}

absl::Status CheckRequest(const v1::CreateJobRequest& request) {
  FieldErrors errors;
  if (!request.job_id().empty() && !IsResourceId(request.job_id())) {
    errors.Add("job_id", "is not a lower-case id of at most 63 letters, digits and dashes",
               "NAME_INVALID");
  }
  CheckLabels(request.job().labels(), errors);
  CheckPriority(request.job().priority(), errors);
  CheckSpec(request.job().spec(), errors);
  return errors.status();
}

absl::Status CheckRoom(Scheduler& scheduler) {
  int64_t active = 0;
  scheduler.View([&](const DispatchState& state) { active = state.jobs().size(); });
  if (active < kMaxQueuedJobs) return absl::OkStatus();
  return Failure(reasons::kQuotaExceeded,
                 absl::StrCat(active, " jobs are waiting, at most ", kMaxQueuedJobs));
}

// The job as it was asked for, without its defaults.
v1::Job JobOf(const v1::CreateJobRequest& request, const std::string& name) {
  v1::Job job;
  job.set_name(name);
  *job.mutable_spec() = request.job().spec();
  job.set_priority(request.job().priority() == v1::Job::PRIORITY_UNSPECIFIED
                       ? v1::Job::NORMAL
                       : request.job().priority());
  *job.mutable_labels() = request.job().labels();
  return job;
}

// Leaves out what a message has no room for.
void FitMessage(v1::Job& job) {
  constexpr size_t kRoom = size_t{3} << 20;
  if (job.ByteSizeLong() <= kRoom) return;
  const bool has_items = std::any_of(
      job.evaluations().begin(), job.evaluations().end(),
      [](const v1::EvaluationResult& result) { return result.choice().items_size() > 0; });
  job = WithoutItems(job);
  if (!has_items) return;
  job.add_warnings("the single items of the evaluations are too many for one answer; left out");
}

// Fills in its options and warns of what is known before it begins. Refused where its bytes or its
// memory cannot be kept.
absl::Status CheckQuantize(Scheduler& scheduler, const GraphSource& source, v1::Job& job) {
  const GraphInput& input = source.input;
  v1::QuantizeSpec& spec = *job.mutable_spec()->mutable_quantize();
  LWQ_RETURN_IF_ERROR(FillOptions(input.method, input.scorer, /*strict=*/true, spec));
  LWQ_ASSIGN_OR_RETURN(const Feasibility feasible,
                       CheckFeasibility(spec, source.model.manifest(), MemoryOf(input)));
  for (const std::string& warning : feasible.warnings) job.add_warnings(warning);
  for (const std::string& warning : TextWarnings(input)) job.add_warnings(warning);
  return CheckWorkerMemory(scheduler, feasible.memory.total_bytes);
}

// How the planning stands, which is no task of its own.
const char* PlanState(const v1::JobRecord& record) {
  const bool planned = record.plan_state() == v1::JobRecord::PLANNED;
  const bool begun = record.plan_state() == v1::JobRecord::RUNNING;
  if (planned) return "DONE";
  if (!IsTerminal(record.job().state())) return begun ? "LEASED" : "BLOCKED";
  return begun && record.job().state() == v1::Job::FAILED ? "FAILED" : "CANCELLED";
}

}  // namespace

absl::Status JobServiceImpl::ReadJob(const Caller& caller, const std::string& name,
                                     v1::Job& response) {
  LWQ_ASSIGN_OR_RETURN(v1::JobRecord record, SeenJob(*env_.scheduler, caller, name));
  response = std::move(*record.mutable_job());
  FitMessage(response);
  return absl::OkStatus();
}

absl::Status JobServiceImpl::DoCreate(const Caller& caller, const v1::CreateJobRequest& request,
                                      v1::Job& response) {
  Scheduler& scheduler = *env_.scheduler;
  LWQ_ASSIGN_OR_RETURN(const RequestMark mark, MarkOf(request, caller.tenant));
  LWQ_ASSIGN_OR_RETURN(const std::string replayed, FindRequest(scheduler.store(), mark));
  if (!replayed.empty()) {
    scheduler.metrics().JobCreated("replayed");
    return ReadJob(caller, replayed, response);
  }
  LWQ_RETURN_IF_ERROR(CheckRequest(request));
  LWQ_RETURN_IF_ERROR(CheckDirectories(request.job().spec(), env_.model_roots));
  SubmitEvent event;
  const std::string id = request.job_id().empty() ? NewJobId(scheduler.NowUs()) : request.job_id();
  event.job = JobOf(request, absl::StrCat("jobs/", id));
  event.job.set_tenant(caller.tenant);
  event.salt = absl::StrCat(event.job.name(), "/", RandomHex(8));
  if (!request.job_id().empty() && scheduler.GetJob(event.job.name()).ok()) {
    return Failure(reasons::kAlreadyExists, absl::StrCat(event.job.name(), " exists already"));
  }
  v1::JobSpec& spec = *event.job.mutable_spec();
  LWQ_RETURN_IF_ERROR(CheckUsable(scheduler, caller.tenant, spec));
  if (spec.has_quantize()) {
    LWQ_ASSIGN_OR_RETURN(const v1::Model model, scheduler.GetModel(spec.quantize().model()));
    FillDefaults(model.manifest(), *spec.mutable_quantize());
  } else {
    FillDefaults(*spec.mutable_evaluate()->mutable_evaluation());
  }
  LWQ_ASSIGN_OR_RETURN(auto source, scheduler.MakeSource(event.salt, spec));
  if (spec.has_quantize()) LWQ_RETURN_IF_ERROR(CheckQuantize(scheduler, *source, event.job));
  LWQ_RETURN_IF_ERROR(CheckRoom(scheduler));
  LWQ_RETURN_IF_ERROR(CheckBytes(scheduler, caller.tenant, 1));
  event.graph = scheduler.BuildFirst(*source);
  if (request.validate_only()) {
    response = event.job;
    return absl::OkStatus();
  }
  LWQ_ASSIGN_OR_RETURN(event.cached,
                       scheduler.LookUp(event.graph, /*seen=*/std::set<std::string>()));
  const std::string name = event.job.name();
  const absl::Status submitted = scheduler.Run([&](Draft& draft) -> absl::Status {
    LWQ_RETURN_IF_ERROR(CheckQueuedJobs(draft, caller.tenant));
    RememberRequest(mark, name, draft);
    return SubmitJob(draft, std::move(event));
  });
  if (!submitted.ok()) {
    LWQ_ASSIGN_OR_RETURN(const std::string same,
                         FindOvertaking(scheduler.store(), mark, submitted));
    return ReadJob(caller, same, response);
  }
  Failpoint("submit.before_answer");
  scheduler.metrics().JobCreated("accepted");
  return ReadJob(caller, name, response);
}

absl::Status JobServiceImpl::DoList(const Caller& caller, const v1::ListJobsRequest& request,
                                    v1::ListJobsResponse& response) {
  LWQ_ASSIGN_OR_RETURN(const int page, PageSize(request.page_size(), 50));
  v1::ListJobsRequest filters = request;
  filters.clear_page_size();
  filters.clear_page_token();
  const std::string filter = Fingerprint(filters);
  ListQuery query;
  query.order = ListQuery::Order::kNewestFirst;
  query.limit = page;
  LWQ_ASSIGN_OR_RETURN(query.tenants,
                       TenantsToList(caller, request.tenant(), request.all_tenants()));
  if (request.state() != v1::Job::STATE_UNSPECIFIED) query.state = request.state();
  if (!request.model().empty()) query.tag = request.model();
  if (request.has_created_after()) query.order_at_least = ToMicros(request.created_after()) + 1;
  LWQ_RETURN_IF_ERROR(ApplyPageToken(request.page_token(), filter, query));
  size_t page_bytes = 0;
  while (true) {
    LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows,
                         env_.scheduler->store().List(Table::kJobs, query));
    for (const Record& row : rows) {
      query.after_key = row.key;
      query.after_order = row.order;
      v1::JobRecord record;
      if (!record.ParseFromString(row.value)) continue;
      if (!request.label_key().empty()) {
        auto label = record.job().labels().find(request.label_key());
        if (label == record.job().labels().end()) continue;
        if (!request.label_value().empty() && label->second != request.label_value()) continue;
      }
      // Of one that runs, as it is now and not as it was stored last.
      if (!IsTerminal(record.job().state())) {
        absl::StatusOr<v1::JobRecord> live = env_.scheduler->GetJob(record.job().name());
        const bool same = live.ok() && live->job().state() == record.job().state();
        if (same) record = *std::move(live);
      }
      *response.add_jobs() = WithoutItems(record.job());
      // What happened to each linear, and which plans were tried, is in GetJob; a page has room for
      // many jobs.
      response.mutable_jobs(response.jobs_size() - 1)->clear_layers();
      response.mutable_jobs(response.jobs_size() - 1)->clear_trials();
      if (record.job().has_plan()) {
        response.mutable_jobs(response.jobs_size() - 1)->mutable_plan()->clear_units();
      }
      page_bytes += response.jobs(response.jobs_size() - 1).ByteSizeLong();
      if (response.jobs_size() == page || page_bytes > kMaxPageBytes) {
        response.set_next_page_token(MakePageToken(row, filter));
        return absl::OkStatus();
      }
    }
    if (static_cast<int>(rows.size()) < query.limit) return absl::OkStatus();
  }
}

absl::Status JobServiceImpl::DoUpdate(const Caller& caller, const v1::UpdateJobRequest& request,
                                      v1::Job& response) {
  LWQ_RETURN_IF_ERROR(CheckJobSeen(*env_.scheduler, caller, request.name()));
  FieldErrors errors;
  CheckLabels(request.labels(), errors);
  CheckPriority(request.priority(), errors);
  LWQ_RETURN_IF_ERROR(errors.status());
  LWQ_ASSIGN_OR_RETURN(const RequestMark mark, MarkOf(request, caller.tenant));
  LWQ_ASSIGN_OR_RETURN(const std::string replayed, FindRequest(env_.scheduler->store(), mark));
  if (replayed.empty()) LWQ_RETURN_IF_ERROR(env_.scheduler->UpdateJob(request, mark));
  return ReadJob(caller, request.name(), response);
}

absl::Status JobServiceImpl::DoCancel(const Caller& caller, const v1::CancelJobRequest& request,
                                      v1::Job& response) {
  LWQ_ASSIGN_OR_RETURN(const RequestMark mark, MarkOf(request, caller.tenant));
  LWQ_RETURN_IF_ERROR(ReadJob(caller, request.name(), response));
  LWQ_ASSIGN_OR_RETURN(const std::string replayed, FindRequest(env_.scheduler->store(), mark));
  if (IsTerminal(response.state()) || !replayed.empty()) return absl::OkStatus();
  absl::Status cancelled = env_.scheduler->Run([&](Draft& draft) {
    RememberRequest(mark, request.name(), draft);
    return lwq::CancelJob(draft, request.name());
  });
  // It may have ended between the two; then it is returned as it is.
  if (!absl::IsNotFound(cancelled)) LWQ_RETURN_IF_ERROR(cancelled);
  return ReadJob(caller, request.name(), response);
}

absl::Status JobServiceImpl::DoRetry(const Caller& caller, const v1::RetryJobRequest& request,
                                     v1::Job& response) {
  Scheduler& scheduler = *env_.scheduler;
  LWQ_RETURN_IF_ERROR(CheckJobSeen(scheduler, caller, request.name()));
  LWQ_ASSIGN_OR_RETURN(const RequestMark mark, MarkOf(request, caller.tenant));
  LWQ_ASSIGN_OR_RETURN(const std::string replayed, FindRequest(scheduler.store(), mark));
  if (!replayed.empty()) return ReadJob(caller, request.name(), response);
  LWQ_ASSIGN_OR_RETURN(const Record row, scheduler.GetJobRow(request.name()));
  LWQ_ASSIGN_OR_RETURN(v1::JobRecord record, ParseRecord<v1::JobRecord>(Table::kJobs, row));
  const v1::Job::State state = record.job().state();
  if (state != v1::Job::FAILED && state != v1::Job::CANCELLED) {
    return Failure(reasons::kStateConflict,
                   absl::StrCat(request.name(), " is ", v1::Job::State_Name(state),
                                "; only FAILED and CANCELLED jobs can be retried"));
  }
  // What it names may be gone by now, and another tenant's may stand under the name.
  const std::string tenant = TenantOf(record.job());
  LWQ_RETURN_IF_ERROR(CheckUsable(scheduler, tenant, record.job().spec()));
  LWQ_RETURN_IF_ERROR(CheckBytes(scheduler, tenant, 1));
  LWQ_ASSIGN_OR_RETURN(auto source, scheduler.MakeSource(SaltOf(record), record.job().spec()));
  const JobGraph graph = scheduler.BuildFirst(*source);
  LWQ_ASSIGN_OR_RETURN(const CachedResults cached, scheduler.LookUp(graph));
  LWQ_RETURN_IF_ERROR(scheduler.Run([&](Draft& draft) -> absl::Status {
    LWQ_RETURN_IF_ERROR(CheckQueuedJobs(draft, tenant));
    RememberRequest(mark, request.name(), draft);
    draft.changes.job_versions[request.name()] = row.version;
    return lwq::RetryJob(draft, std::move(record), graph, cached);
  }));
  return ReadJob(caller, request.name(), response);
}

absl::Status JobServiceImpl::DoDelete(const Caller& caller, const v1::DeleteJobRequest& request) {
  LWQ_RETURN_IF_ERROR(CheckName(request.name(), "jobs"));
  LWQ_ASSIGN_OR_RETURN(const RequestMark mark, MarkOf(request, caller.tenant));
  LWQ_ASSIGN_OR_RETURN(const std::string replayed, FindRequest(env_.scheduler->store(), mark));
  if (!replayed.empty()) return absl::OkStatus();
  LWQ_RETURN_IF_ERROR(CheckJobSeen(*env_.scheduler, caller, request.name()));
  return lwq::DeleteJob(*env_.scheduler, request.name(), mark);
}

absl::Status JobServiceImpl::DoListTasks(const Caller& caller, const v1::ListTasksRequest& request,
                                         v1::ListTasksResponse& response) {
  LWQ_ASSIGN_OR_RETURN(const int page, PageSize(request.page_size(), 1000));
  LWQ_ASSIGN_OR_RETURN(const v1::JobRecord record, SeenJob(*env_.scheduler, caller, request.job()));
  std::vector<v1::TaskStatus> all(record.finished().begin(), record.finished().end());
  if (!IsTerminal(record.job().state())) {
    all.clear();
    const std::set<std::string> cached(record.cached().begin(), record.cached().end());
    env_.scheduler->View([&](const DispatchState& state) {
      const Draft view(state, env_.scheduler->Now());
      for (const std::string& key : record.tasks()) {
        const v1::TaskRecord* task = view.FindTask(key);
        if (task == nullptr) continue;
        all.push_back(StatusOf(*task, cached.count(key) > 0));
        AddLiveStatus(view, *task, all.back());
      }
    });
  }
  if (record.plan_state() != v1::JobRecord::NO_PLAN) {
    v1::TaskStatus plan;
    plan.set_task(absl::StrCat("plan-", request.job().substr(5)));
    plan.set_kind("plan");
    plan.set_layer(kNoLayer);
    plan.set_state(PlanState(record));
    all.push_back(std::move(plan));
  }
  int64_t first = 0;
  if (!request.page_token().empty() &&
      (!absl::SimpleAtoi(request.page_token(), &first) || first < 0)) {
    return Failure(reasons::kPageTokenInvalid, "page_token is not one of this list");
  }
  for (int64_t i = first; i < static_cast<int64_t>(all.size()); ++i) {
    if (i - first == page) {
      response.set_next_page_token(absl::StrCat(i));
      break;
    }
    *response.add_tasks() = std::move(all[i]);
  }
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* JobServiceImpl::CreateJob(grpc::CallbackServerContext* context,
                                                    const v1::CreateJobRequest* request,
                                                    v1::Job* response) {
  // Looking at directories may hang, on a mount that does: then the writers must not.
  Executor& executor = request->job().spec().has_evaluate() ? *env_.files : *env_.write;
  return RunUnaryAs(env_, context, kServiceName, "CreateJob", executor,
                    [=, this](const Caller& caller) {
                      absl::Status status = DoCreate(caller, *request, *response);
                      if (!status.ok()) env_.scheduler->metrics().JobCreated("rejected");
                      return status;
                    },
                    {request, response});
}

grpc::ServerUnaryReactor* JobServiceImpl::GetJob(grpc::CallbackServerContext* context,
                                                 const v1::GetJobRequest* request,
                                                 v1::Job* response) {
  return RunUnaryAs(
      env_, context, kServiceName, "GetJob", *env_.read,
      [=, this](const Caller& caller) { return ReadJob(caller, request->name(), *response); });
}

grpc::ServerUnaryReactor* JobServiceImpl::ListJobs(grpc::CallbackServerContext* context,
                                                   const v1::ListJobsRequest* request,
                                                   v1::ListJobsResponse* response) {
  return RunUnaryAs(
      env_, context, kServiceName, "ListJobs", *env_.read,
      [=, this](const Caller& caller) { return DoList(caller, *request, *response); });
}

grpc::ServerUnaryReactor* JobServiceImpl::UpdateJob(grpc::CallbackServerContext* context,
                                                    const v1::UpdateJobRequest* request,
                                                    v1::Job* response) {
  return RunUnaryAs(
      env_, context, kServiceName, "UpdateJob", *env_.write,
      [=, this](const Caller& caller) { return DoUpdate(caller, *request, *response); },
      {request, response});
}

grpc::ServerUnaryReactor* JobServiceImpl::CancelJob(grpc::CallbackServerContext* context,
                                                    const v1::CancelJobRequest* request,
                                                    v1::Job* response) {
  return RunUnaryAs(
      env_, context, kServiceName, "CancelJob", *env_.write,
      [=, this](const Caller& caller) { return DoCancel(caller, *request, *response); },
      {request, response});
}

grpc::ServerUnaryReactor* JobServiceImpl::RetryJob(grpc::CallbackServerContext* context,
                                                   const v1::RetryJobRequest* request,
                                                   v1::Job* response) {
  return RunUnaryAs(
      env_, context, kServiceName, "RetryJob", *env_.write,
      [=, this](const Caller& caller) { return DoRetry(caller, *request, *response); },
      {request, response});
}

grpc::ServerUnaryReactor* JobServiceImpl::DeleteJob(grpc::CallbackServerContext* context,
                                                    const v1::DeleteJobRequest* request,
                                                    v1::DeleteJobResponse*) {
  return RunUnaryAs(env_, context, kServiceName, "DeleteJob", *env_.write,
                    [=, this](const Caller& caller) { return DoDelete(caller, *request); },
                    {request});
}

grpc::ServerWriteReactor<v1::JobEvent>* JobServiceImpl::WatchJob(
    grpc::CallbackServerContext* context, const v1::WatchJobRequest* request) {
  return NewWatchCall(env_, context, *request);
}

grpc::ServerUnaryReactor* JobServiceImpl::PlanJob(grpc::CallbackServerContext* context,
                                                  const v1::PlanJobRequest* request,
                                                  v1::PlanJobResponse* response) {
  return RunUnaryAs(
      env_, context, kServiceName, "PlanJob", *env_.read,
      [=, this](const Caller& caller) { return DoPlan(caller, *request, *response); });
}

grpc::ServerUnaryReactor* JobServiceImpl::ListTasks(grpc::CallbackServerContext* context,
                                                    const v1::ListTasksRequest* request,
                                                    v1::ListTasksResponse* response) {
  return RunUnaryAs(
      env_, context, kServiceName, "ListTasks", *env_.read,
      [=, this](const Caller& caller) { return DoListTasks(caller, *request, *response); });
}

}  // namespace lwq

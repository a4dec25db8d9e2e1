#include <unistd.h>

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "records/option_records.h"
#include "server/dispatch/work_estimate.h"
#include "server/service/health_checks.h"
#include "server/service/request_log.h"
#include "server/service/tenancy.h"
#include "server/service/validation.h"
#include "server/service/worker_service.h"
#include "worker/engine/plan/allocator.h"
#include "worker/engine/plan/profile.h"

namespace lwq {
namespace {

constexpr char kServiceName[] = "AdminService";

// Of what a worker does, a client sees its tenant's tasks.
void LeaveOutUnseen(const DispatchState& state, const Caller& caller, v1::Worker& worker) {
  if (caller.sees_all()) return;
  const auto is_unseen = [&](const std::string& key) {
    const auto task = state.tasks().find(key);
    return task == state.tasks().end() || !MaySee(caller, TenantOf(task->second));
  };
  auto& tasks = *worker.mutable_tasks();
  tasks.erase(std::remove_if(tasks.begin(), tasks.end(), is_unseen), tasks.end());
  auto& running = *worker.mutable_running();
  running.erase(std::remove_if(running.begin(), running.end(),
                               [&](const v1::RunningTask& task) { return is_unseen(task.task()); }),
                running.end());
}

v1::ListTenantsResponse TenantsOf(const Scheduler& scheduler) {
  std::map<std::string, v1::Tenant> tenants;
  for (const auto& [name, bytes] : scheduler.tenant_bytes().All()) tenants[name].set_bytes(bytes);
  scheduler.View([&](const DispatchState& state) {
    for (const auto& [name, settings] : state.options().tenants) tenants[name];
    for (const auto& [name, model] : state.models()) tenants[TenantOf(model)];
    for (const auto& [name, counts] : state.tenants()) {
      tenants[name].set_running_jobs(counts.at_work + counts.held - counts.queued);
      tenants[name].set_queued_jobs(counts.queued);
    }
    for (auto& [name, tenant] : tenants) {
      const TenantOptions& settings = OptionsOf(state.options().tenants, name);
      tenant.set_name(name);
      tenant.set_weight(settings.weight);
      tenant.set_max_running_jobs(settings.max_running_jobs);
      tenant.set_max_queued_jobs(settings.max_queued_jobs);
      tenant.set_max_bytes(settings.max_bytes);
      tenant.set_worker_seconds(state.shares().SecondsOf(name));
    }
  });
  tenants.erase(kEverybody);
  v1::ListTenantsResponse response;
  for (auto& [name, tenant] : tenants) *response.add_tenants() = std::move(tenant);
  return response;
}

}  // namespace

std::vector<v1::Worker> WorkersOf(const DispatchState& state, Moment now) {
  std::vector<v1::Worker> workers;
  for (const auto& [id, record] : state.workers()) {
    v1::Worker& worker = workers.emplace_back();
    worker.set_name(absl::StrCat("workers/", id));
    worker.set_incarnation(record.registration().incarnation());
    *worker.mutable_registration() = record.registration();
    worker.set_cordoned(record.cordoned());
    worker.set_tasks_done(record.tasks_done());
    worker.set_cordon_reason(record.cordon_reason());
    *worker.mutable_seen_time() = ToTimestamp(now.wall_us - (now.steady_us - state.SeenUs(id)));
    for (const std::string& key : state.LeasesOf(id)) worker.add_tasks(key);
    for (v1::RunningTask& task : RunningTasksOf(Draft(state, now), id)) {
      *worker.add_running() = std::move(task);
    }
    worker.set_state(state.StateOf(id, now.steady_us));
  }
  return workers;
}

grpc::ServerUnaryReactor* AdminServiceImpl::GetServerInfo(grpc::CallbackServerContext* context,
                                                          const v1::GetServerInfoRequest*,
                                                          v1::ServerInfo* response) {
  return RunUnary(env_, context, kServiceName, "GetServerInfo", *env_.read, [=, this] {
    Scheduler& scheduler = *env_.scheduler;
    response->set_version(LWQ_VERSION);
    response->set_store(std::string(scheduler.store().name()));
    response->set_data_directory(env_.data_directory);
    *response->mutable_start_time() = ToTimestamp(absl::ToUnixMicros(env_.start_time));
    std::vector<v1::Capability> quantizers, scorers;
    std::vector<std::string> families;
    scheduler.Capabilities(quantizers, scorers, families);
    // Every client asks for this first, so workers that make up methods must not make it too long.
    size_t bytes = 0;
    const auto fits = [&bytes](size_t more) { return (bytes += more) <= kMaxPageBytes; };
    for (const auto& c : quantizers) {
      if (fits(c.ByteSizeLong())) *response->add_quantizers() = c;
    }
    for (const auto& c : scorers) {
      if (fits(c.ByteSizeLong())) *response->add_scorers() = c;
    }
    for (const auto& f : families) {
      if (fits(f.size())) response->add_families(f);
    }
    for (const AllocatorDef* a : Allocators()) {
      response->add_allocators(std::string(a->name));
      v1::Capability& details = *response->add_allocator_details();
      details.set_name(std::string(a->name));
      details.set_help(std::string(a->help));
      OptionsToProto(a->options, details.mutable_options());
    }
    for (const ProfileDef& p : Profiles()) response->add_profiles(std::string(p.name));
    scheduler.View([&](const DispatchState& state) {
      for (const v1::Worker& worker : WorkersOf(state, scheduler.Now())) {
        if (worker.state() == v1::Worker::READY || worker.state() == v1::Worker::BUSY) {
          response->set_live_workers(response->live_workers() + 1);
        }
      }
    });
    response->set_server_pid(::getpid());
    response->set_blob_bytes(scheduler.blobs().total_bytes());
    response->set_blob_count(scheduler.blobs().total_count());
    for (v1::HealthCheck& check : CheckHealth(scheduler, env_.data_directory)) {
      *response->add_checks() = std::move(check);
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminServiceImpl::ListWorkers(grpc::CallbackServerContext* context,
                                                        const v1::ListWorkersRequest* request,
                                                        v1::ListWorkersResponse* response) {
  return RunUnaryAs(env_, context, kServiceName, "ListWorkers", *env_.read,
                    [=, this](const Caller& caller) -> absl::Status {
                      LWQ_ASSIGN_OR_RETURN(const int page, PageSize(request->page_size(), 50));
                      ListQuery after;
                      LWQ_RETURN_IF_ERROR(ApplyPageToken(request->page_token(), "workers", after));
                      std::vector<v1::Worker> workers;
                      env_.scheduler->View([&](const DispatchState& state) {
                        workers = WorkersOf(state, env_.scheduler->Now());
                        for (v1::Worker& worker : workers) LeaveOutUnseen(state, caller, worker);
                      });
                      size_t bytes = 0;
                      for (v1::Worker& worker : workers) {
                        if (worker.name() <= after.after_key) continue;
                        const int listed = response->workers_size();
                        if (listed == page || bytes > kMaxPageBytes) {
                          response->set_next_page_token(MakePageToken(
                              {.key = response->workers(listed - 1).name()}, "workers"));
                          break;
                        }
                        bytes += worker.ByteSizeLong();
                        *response->add_workers() = std::move(worker);
                      }
                      return absl::OkStatus();
                    });
}

grpc::ServerUnaryReactor* AdminServiceImpl::ListTenants(grpc::CallbackServerContext* context,
                                                        const v1::ListTenantsRequest*,
                                                        v1::ListTenantsResponse* response) {
  return RunUnary(env_, context, kServiceName, "ListTenants", *env_.read, [=, this] {
    *response = TenantsOf(*env_.scheduler);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminServiceImpl::CordonWorker(grpc::CallbackServerContext* context,
                                                         const v1::CordonWorkerRequest* request,
                                                         v1::Worker* response) {
  return RunUnaryAs(env_, context, kServiceName, "CordonWorker", *env_.write,
                    [=, this](const Caller& caller) -> absl::Status {
                      LWQ_RETURN_IF_ERROR(CheckName(request->name(), "workers"));
                      const std::string id = request->name().substr(sizeof("workers/") - 1);
                      LWQ_ASSIGN_OR_RETURN(const RequestMark mark, MarkOf(*request, caller.tenant));
                      LWQ_ASSIGN_OR_RETURN(const std::string replayed,
                                           FindRequest(env_.scheduler->store(), mark));
                      LWQ_RETURN_IF_ERROR(env_.scheduler->Run([&](Draft& draft) -> absl::Status {
                        if (!replayed.empty()) return absl::OkStatus();
                        RememberRequest(mark, request->name(), draft);
                        v1::WorkerRecord* worker = draft.EditWorker(id);
                        if (worker == nullptr) {
                          return Failure(reasons::kNotFound,
                                         absl::StrCat("no worker ", request->name()));
                        }
                        worker->set_cordoned(request->cordoned());
                        worker->set_cordoned_us(request->cordoned() ? draft.now_us() : 0);
                        worker->clear_cordon_reason();
                        worker->clear_faults();
                        draft.effects.tasks_ready = draft.state().ready().size();
                        return absl::OkStatus();
                      }));
                      env_.scheduler->View([&](const DispatchState& state) {
                        for (v1::Worker& worker : WorkersOf(state, env_.scheduler->Now())) {
                          if (worker.name() == request->name()) *response = std::move(worker);
                        }
                      });
                      return absl::OkStatus();
                    },
                    {request, response});
}

grpc::ServerUnaryReactor* AdminServiceImpl::CollectGarbage(grpc::CallbackServerContext* context,
                                                           const v1::CollectGarbageRequest* request,
                                                           v1::CollectGarbageResponse* response) {
  return RunUnary(env_, context, kServiceName, "CollectGarbage", *env_.blob,
                  [=, this]() -> absl::Status {
                    LWQ_ASSIGN_OR_RETURN(*response, collector_->Collect(request->dry_run()));
                    return absl::OkStatus();
                  },
                  {request, response});
}

grpc::ServerUnaryReactor* AdminServiceImpl::DrainServer(grpc::CallbackServerContext* context,
                                                        const v1::DrainServerRequest* request,
                                                        v1::DrainServerResponse*) {
  return RunUnary(env_, context, kServiceName, "DrainServer", *env_.read,
                  [this] {
                    spdlog::info("drain was asked for");
                    if (env_.request_drain) env_.request_drain();
                    return absl::OkStatus();
                  },
                  {request});
}

}  // namespace lwq

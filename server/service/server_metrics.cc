#include "server/service/server_metrics.h"

#include <limits>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "google/protobuf/descriptor.h"
#include "proto/lwq/v1/admin_service.pb.h"
#include "proto/lwq/v1/artifact_service.pb.h"
#include "proto/lwq/v1/job_service.pb.h"
#include "proto/lwq/v1/model_service.pb.h"
#include "proto/lwq/v1/token_service.pb.h"
#include "proto/lwq/v1/worker_service.pb.h"
#include "server/dispatch/task_key.h"

namespace lwq {
namespace {

constexpr char kOtherTenants[] = "(other)";  // no tenant can be called so

std::string Lower(const std::string& text) { return absl::AsciiStrToLower(text); }

std::vector<std::string> Kinds(bool with_plan) {
  std::vector<std::string> kinds;
  for (absl::string_view kind : TaskKinds()) kinds.emplace_back(kind);
  if (with_plan) kinds.push_back("plan");
  return kinds;
}

// Of jobs that have ended.
std::vector<std::string> EndStates() {
  std::vector<std::string> states;
  for (v1::Job::State state : {v1::Job::SUCCEEDED, v1::Job::FAILED, v1::Job::CANCELLED}) {
    states.push_back(Lower(v1::Job::State_Name(state)));
  }
  return states;
}

std::vector<std::string> Codes() {
  std::vector<std::string> codes;
  for (int c = 0; c <= 16; ++c) {
    codes.push_back(absl::StatusCodeToString(static_cast<absl::StatusCode>(c)));
  }
  return codes;
}

const char* BlameName(v1::Failure::Blame blame) {
  switch (blame) {
    case v1::Failure::USER:
      return "user";
    case v1::Failure::MODEL:
      return "model";
    case v1::Failure::CAPACITY:
      return "capacity";
    case v1::Failure::SERVICE:
      return "service";
    default:
      return "none";
  }
}

}  // namespace

std::vector<std::vector<std::string>> ApiMethods() {
  std::vector<std::vector<std::string>> methods;
  for (const google::protobuf::FileDescriptor* file :
       {v1::GetJobRequest::descriptor()->file(), v1::GetModelRequest::descriptor()->file(),
        v1::GetArtifactRequest::descriptor()->file(), v1::Lease::descriptor()->file(),
        v1::ServerInfo::descriptor()->file(), v1::CreateTokenRequest::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        methods.push_back({file->service(s)->name(), file->service(s)->method(m)->name()});
      }
    }
  }
  return methods;
}

ServerMetrics::ServerMetrics(const TenantSettings& tenants) {
  AddJobs();
  AddQuality();
  AddTasks();
  AddTenants(tenants);
  AddStorage();
  AddRpcs();
  AddCertificates();
  metrics_.AddGauge("lwq_build_info", "The build; always 1.", {"version"}, {{LWQ_VERSION}})
      ->Set({LWQ_VERSION}, 1);
}

void ServerMetrics::AddJobs() {
  jobs_ = metrics_.AddGauge("lwq_jobs", "Jobs that are not finished, by state.", {"state"},
                            AllOf({{"queued", "running", "cancelling"}}));
  jobs_created_ = metrics_.AddCounter("lwq_jobs_created_total", "CreateJob calls by outcome.",
                                      {"outcome"}, AllOf({{"accepted", "replayed", "rejected"}}));
  jobs_finished_ = metrics_.AddCounter(
      "lwq_jobs_finished_total", "Jobs that ended, by state and who can mend the failure.",
      {"state", "blame"}, AllOf({EndStates(), {"none", "user", "model", "capacity", "service"}}));
  job_seconds_ = metrics_.AddHistogram("lwq_job_seconds", "From submission to the end.",
                                       JobBuckets(), {"state"}, AllOf({EndStates()}));
}

void ServerMetrics::AddTasks() {
  tasks_ready_ = metrics_.AddGauge("lwq_tasks_ready", "Tasks that wait for a worker.", {"kind"},
                                   AllOf({Kinds(false)}));
  tasks_leased_ = metrics_.AddGauge("lwq_tasks_leased", "Tasks that a worker has.", {"kind"},
                                    AllOf({Kinds(false)}));
  task_seconds_ =
      metrics_.AddHistogram("lwq_task_duration_seconds", "Compute time of finished tasks.",
                            TaskBuckets(), {"kind"}, AllOf({Kinds(true)}));
  task_events_ = metrics_.AddCounter(
      "lwq_task_events_total", "What happened to tasks; cached ones once for each job.",
      {"kind", "event"}, AllOf({Kinds(true), {"leased", "done", "cached", "retry", "failed"}}));
  cache_lookups_ =
      metrics_.AddCounter("lwq_cache_lookups_total", "Looks for results of earlier jobs.",
                          {"kind", "result"}, AllOf({Kinds(false), {"hit", "miss", "incomplete"}}));
  cache_saved_ = metrics_.AddCounter(
      "lwq_cache_saved_seconds_total",
      "Compute time that results of earlier jobs spared; as much as they took when computed.",
      {"kind"}, AllOf({Kinds(true)}));
  leases_granted_ =
      metrics_.AddCounter("lwq_leases_granted_total", "Tasks handed out.", {}, AllOf({}));
  leases_expired_ =
      metrics_.AddCounter("lwq_leases_expired_total",
                          "Leases taken back because the worker went silent.", {}, AllOf({}));
  leases_rejected_ = metrics_.AddCounter(
      "lwq_leases_rejected_total", "Writes of workers that no longer held the lease.", {"reason"},
      AllOf({{"lease_lost", "superseded", "unknown"}}));
  workers_ = metrics_.AddGauge("lwq_workers", "Registered workers.", {"state"},
                               AllOf({{"ready", "busy", "cordoned", "silent", "lost"}}));
}

void ServerMetrics::AddTenants(const TenantSettings& tenants) {
  std::set<std::string> named = {kDefaultTenant};
  for (const auto& [name, settings] : tenants) named.insert(name);
  named.erase(kEverybody);
  tenants_.assign(named.begin(), named.end());
  tenants_.push_back(kOtherTenants);
  tenant_jobs_ = metrics_.AddGauge(
      "lwq_tenant_jobs", "Jobs that are not finished, by tenant: those that run and the queue.",
      {"tenant", "state"}, AllOf({tenants_, {"running", "queued"}}));
  tenant_tasks_ =
      metrics_.AddGauge("lwq_tenant_tasks", "Tasks that wait for a worker or that one has.",
                        {"tenant", "state"}, AllOf({tenants_, {"ready", "leased"}}));
  tenant_bytes_ =
      metrics_.AddGauge("lwq_tenant_stored_bytes",
                        "What a tenant has sent and of artifacts, as its quota of bytes counts it.",
                        {"tenant"}, AllOf({tenants_}));
}

void ServerMetrics::AddStorage() {
  blob_bytes_ = metrics_.AddGauge("lwq_blob_bytes", "Bytes of all blobs.", {}, AllOf({}));
  blob_objects_ = metrics_.AddGauge("lwq_blob_objects", "Number of blobs.", {}, AllOf({}));
  blob_free_ = metrics_.AddGauge("lwq_blob_free_bytes",
                                 "Free bytes of the blobs' file system; Inf in S3.", {}, AllOf({}));
  blob_io_ = metrics_.AddCounter("lwq_blob_io_bytes_total", "Bytes of blobs moved.", {"op"},
                                 AllOf({{"read", "write"}}));
  collected_ = metrics_.AddCounter(
      "lwq_collected_total", "What collection deleted because nothing needs it any more.", {"what"},
      AllOf({{"job", "artifact", "result", "request", "blob"}}));
  collected_bytes_ = metrics_.AddCounter(
      "lwq_collected_bytes_total", "Bytes of the blobs that collection deleted.", {}, AllOf({}));
  store_seconds_ = metrics_.AddHistogram("lwq_store_op_seconds", "Time of store operations.",
                                         LatencyBuckets(), {"op"}, AllOf({{"commit"}}));
  store_errors_ = metrics_.AddCounter("lwq_store_errors_total", "Store operations that failed.",
                                      {"op"}, AllOf({{"commit"}}));
}

void ServerMetrics::AddRpcs() {
  executor_queue_ =
      metrics_.AddGauge("lwq_executor_queue", "Work waiting for a thread.", {"executor"},
                        AllOf({{"write", "read", "blob", "beat", "watch", "files", "cpu"}}));
  Metrics::LabelSets with_code;
  for (const auto& method : ApiMethods()) {
    for (const std::string& code : Codes()) with_code.push_back({method[0], method[1], code});
  }
  rpc_requests_ = metrics_.AddCounter("lwq_grpc_requests_total", "RPCs that ended.",
                                      {"service", "method", "code"}, with_code);
  rpc_seconds_ = metrics_.AddHistogram("lwq_grpc_request_seconds", "Time of RPCs.",
                                       LatencyBuckets(), {"service", "method"}, ApiMethods());
  rpc_in_flight_ = metrics_.AddGauge("lwq_grpc_in_flight", "RPCs that are open.",
                                     {"service", "method"}, ApiMethods());
  connections_refused_ = metrics_.AddCounter(
      "lwq_connections_refused_total",
      "Connections that were closed at once: all have too many descriptors, or one machine has too "
      "many connections.",
      {"limit_of"}, AllOf({{"all", "one"}}));
}

void ServerMetrics::AddCertificates() {
  certificate_reloads_ = metrics_.AddCounter(
      "lwq_tls_reload_total",
      "New certificates of the server: renewed, or refused because they cannot be used.",
      {"outcome"}, AllOf({{"renewed", "refused"}}));
  certificate_life_ =
      metrics_.AddGauge("lwq_tls_certificate_life_seconds",
                        "Until the server's certificate expires; 0 without TLS.", {}, AllOf({}));
}

void ServerMetrics::CertificateReloaded(const std::string& outcome) {
  certificate_reloads_->Add({outcome});
}

void ServerMetrics::ConnectionRefused(const std::string& who) { connections_refused_->Add({who}); }

void ServerMetrics::SetCertificateLife(double seconds) { certificate_life_->Set({}, seconds); }

void ServerMetrics::AddQuality() {
  budget_used_ = metrics_.AddHistogram("lwq_job_budget_used_ratio",
                                       "Size of the plan over its budget, of jobs that succeeded.",
                                       {.5, .8, .9, .95, .98, .99, .995, 1}, {}, AllOf({}));
  bits_per_weight_ = metrics_.AddHistogram("lwq_job_bits_per_weight",
                                           "Bits per quantized weight, of jobs that succeeded.",
                                           {2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 8, 16}, {}, AllOf({}));
  kl_ = metrics_.AddHistogram("lwq_job_kl_nats",
                              "Mean KL divergence of the artifact from its source model, for each "
                              "text that a job measured it on.",
                              {.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}, {},
                              AllOf({}));
  perplexity_ratio_ = metrics_.AddHistogram(
      "lwq_job_perplexity_ratio", "Perplexity of the artifact over that of its source model.",
      {.95, .99, 1, 1.005, 1.01, 1.02, 1.05, 1.1, 1.25, 1.5, 2, 5}, {}, AllOf({}));
  trials_ = metrics_.AddCounter(
      "lwq_job_trials_total", "Candidate plans that jobs that succeeded measured.", {}, AllOf({}));
}

void ServerMetrics::SetCounts(const DispatchCounts& counts) {
  for (int s : {v1::Job::QUEUED, v1::Job::RUNNING, v1::Job::CANCELLING}) {
    auto it = counts.jobs.find(s);
    jobs_->Set({Lower(v1::Job::State_Name(static_cast<v1::Job::State>(s)))},
               it == counts.jobs.end() ? 0 : it->second);
  }
  for (const std::string& kind : Kinds(false)) {
    auto ready = counts.ready.find(kind);
    auto leased = counts.leased.find(kind);
    tasks_ready_->Set({kind}, ready == counts.ready.end() ? 0 : ready->second);
    tasks_leased_->Set({kind}, leased == counts.leased.end() ? 0 : leased->second);
  }
}

void ServerMetrics::SetWorkers(const std::map<std::string, int>& by_state) {
  for (const char* state : {"ready", "busy", "cordoned", "silent", "lost"}) {
    auto it = by_state.find(state);
    workers_->Set({state}, it == by_state.end() ? 0 : it->second);
  }
}

void ServerMetrics::SetTenants(const std::map<std::string, TenantUse>& by_tenant) {
  std::map<std::string, TenantUse> told;
  for (const std::string& name : tenants_) told[name];
  for (const auto& [name, use] : by_tenant) {
    TenantUse& sum = told[told.count(name) > 0 ? name : kOtherTenants];
    sum.running_jobs += use.running_jobs;
    sum.queued_jobs += use.queued_jobs;
    sum.ready_tasks += use.ready_tasks;
    sum.leased_tasks += use.leased_tasks;
    sum.stored_bytes += use.stored_bytes;
  }
  for (const auto& [name, use] : told) {
    tenant_jobs_->Set({name, "running"}, use.running_jobs);
    tenant_jobs_->Set({name, "queued"}, use.queued_jobs);
    tenant_tasks_->Set({name, "ready"}, static_cast<double>(use.ready_tasks));
    tenant_tasks_->Set({name, "leased"}, static_cast<double>(use.leased_tasks));
    tenant_bytes_->Set({name}, static_cast<double>(use.stored_bytes));
  }
}

void ServerMetrics::SetBlobs(int64_t bytes, int64_t count) {
  blob_bytes_->Set({}, static_cast<double>(bytes));
  blob_objects_->Set({}, static_cast<double>(count));
}

void ServerMetrics::SetFreeBlobBytes(int64_t bytes) {
  const bool limited = bytes != std::numeric_limits<int64_t>::max();
  blob_free_->Set({},
                  limited ? static_cast<double>(bytes) : std::numeric_limits<double>::infinity());
}

void ServerMetrics::SetQueued(const std::string& executor, int queued) {
  executor_queue_->Set({executor}, queued);
}

void ServerMetrics::JobCreated(const std::string& outcome) { jobs_created_->Add({outcome}); }

void ServerMetrics::JobFinished(const v1::Job& job, double seconds) {
  const std::string state = Lower(v1::Job::State_Name(job.state()));
  jobs_finished_->Add({state, BlameName(job.failure().blame())});
  job_seconds_->Observe({state}, seconds);
  if (job.state() == v1::Job::SUCCEEDED) CountQuality(job);
}

void ServerMetrics::CountQuality(const v1::Job& job) {
  if (job.has_plan()) {
    bits_per_weight_->Observe({}, job.plan().bits_per_weight());
    trials_->Add({}, job.trials_size());
    if (job.plan().budget_bytes() > 0) {
      budget_used_->Observe({}, static_cast<double>(job.plan().plan_bytes()) /
                                    static_cast<double>(job.plan().budget_bytes()));
    }
  }
  std::map<std::string, double> source;  // perplexity by dataset
  for (const v1::EvaluationResult& result : job.evaluations()) {
    if (result.subject() == "source") source[result.dataset()] = result.text().token_perplexity();
  }
  for (const v1::EvaluationResult& result : job.evaluations()) {
    if (result.subject() != "artifact" || !result.has_text()) continue;
    if (result.text().has_kl()) kl_->Observe({}, result.text().kl().mean());
    const double before = source[result.dataset()];
    if (before > 0) perplexity_ratio_->Observe({}, result.text().token_perplexity() / before);
  }
}

void ServerMetrics::TaskEvent(const std::string& kind, v1::TaskEvent::State state, double seconds) {
  task_events_->Add({kind, Lower(v1::TaskEvent::State_Name(state))});
  if (state == v1::TaskEvent::DONE) task_seconds_->Observe({kind}, seconds);
  if (state == v1::TaskEvent::LEASED) leases_granted_->Add({});
  if (state == v1::TaskEvent::CACHED) cache_saved_->Add({kind}, seconds);
}

void ServerMetrics::CacheLookup(const std::string& kind, const std::string& result) {
  cache_lookups_->Add({kind, result});
}

void ServerMetrics::LeasesExpired(int64_t count) {
  if (count > 0) leases_expired_->Add({}, static_cast<double>(count));
}

void ServerMetrics::LeaseRejected(const std::string& reason) { leases_rejected_->Add({reason}); }

void ServerMetrics::StoreOp(const std::string& op, double seconds, const absl::Status& status) {
  store_seconds_->Observe({op}, seconds);
  if (!status.ok()) store_errors_->Add({op});
}

void ServerMetrics::Collected(const v1::CollectGarbageResponse& deleted) {
  collected_->Add({"job"}, static_cast<double>(deleted.jobs()));
  collected_->Add({"artifact"}, static_cast<double>(deleted.artifacts()));
  collected_->Add({"result"}, static_cast<double>(deleted.cache_entries()));
  collected_->Add({"request"}, static_cast<double>(deleted.requests()));
  collected_->Add({"blob"}, static_cast<double>(deleted.blobs()));
  collected_bytes_->Add({}, static_cast<double>(deleted.blob_bytes()));
}

void ServerMetrics::BlobIo(const std::string& op, int64_t bytes) {
  blob_io_->Add({op}, static_cast<double>(bytes));
}

void ServerMetrics::RpcStarted(const std::string& service, const std::string& method) {
  rpc_in_flight_->Add({service, method}, 1);
}

void ServerMetrics::RpcEnded(const std::string& service, const std::string& method,
                             absl::StatusCode code, double seconds) {
  rpc_in_flight_->Add({service, method}, -1);
  rpc_requests_->Add({service, method, absl::StatusCodeToString(code)});
  rpc_seconds_->Observe({service, method}, seconds);
}

std::string ServerMetrics::Expose() {
  process_.Update();
  return metrics_.Expose();
}

}  // namespace lwq

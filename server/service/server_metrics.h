// The server's metrics: names, labels and what counts. docs in the HELP lines.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/metrics/metrics.h"
#include "base/metrics/process_metrics.h"
#include "proto/lwq/v1/admin_service.pb.h"
#include "proto/lwq/v1/event.pb.h"
#include "proto/lwq/v1/job.pb.h"
#include "server/dispatch/dispatch_state.h"
#include "server/dispatch/tenant_options.h"

namespace lwq {

// What a tenant has at a time.
struct TenantUse {
  int running_jobs = 0, queued_jobs = 0;
  int64_t ready_tasks = 0, leased_tasks = 0;
  int64_t stored_bytes = 0;
};

// Thread-safe.
class ServerMetrics {
 public:
  // Of tenants those have labels of their own that the operator named, and the default one; all
  // others are one, "(other)": whoever makes tenants makes no series.
  explicit ServerMetrics(const TenantSettings& tenants = {});

  void SetCounts(const DispatchCounts& counts);
  void SetWorkers(const std::map<std::string, int>& by_state);
  void SetTenants(const std::map<std::string, TenantUse>& by_tenant);
  void SetBlobs(int64_t bytes, int64_t count);
  void SetFreeBlobBytes(int64_t bytes);  // as BlobStore::FreeBytes says
  void SetQueued(const std::string& executor, int queued);
  void JobCreated(const std::string& outcome);  // accepted, replayed, rejected
  // `job` has ended, `seconds` after it was submitted.
  void JobFinished(const v1::Job& job, double seconds);
  void TaskEvent(const std::string& kind, v1::TaskEvent::State state, double seconds);
  void CacheLookup(const std::string& kind, const std::string& result);
  void LeasesExpired(int64_t count);
  void LeaseRejected(const std::string& reason);  // lease_lost, superseded, unknown
  void StoreOp(const std::string& op, double seconds, const absl::Status& status);
  void Collected(const v1::CollectGarbageResponse& deleted);
  void BlobIo(const std::string& op, int64_t bytes);     // read, write
  void CertificateReloaded(const std::string& outcome);  // renewed, refused
  void SetCertificateLife(double seconds);
  void ConnectionRefused(const std::string& who);  // all, one: as Listener says
  void RpcStarted(const std::string& service, const std::string& method);
  void RpcEnded(const std::string& service, const std::string& method, absl::StatusCode code,
                double seconds);

  std::string Expose();

 private:
  void AddJobs();
  void AddQuality();
  void AddTasks();
  void AddTenants(const TenantSettings& tenants);
  void AddStorage();
  void AddRpcs();
  void AddCertificates();
  // What a job that succeeded gave for its budget.
  void CountQuality(const v1::Job& job);

  Metrics metrics_;
  ProcessMetrics process_{metrics_};
  GaugeFamily* jobs_;
  CounterFamily* jobs_created_;
  CounterFamily* jobs_finished_;
  HistogramFamily* job_seconds_;
  HistogramFamily* budget_used_;
  HistogramFamily* bits_per_weight_;
  HistogramFamily* kl_;
  HistogramFamily* perplexity_ratio_;
  CounterFamily* trials_;
  GaugeFamily* tasks_ready_;
  GaugeFamily* tasks_leased_;
  HistogramFamily* task_seconds_;
  CounterFamily* task_events_;
  CounterFamily* cache_lookups_;
  CounterFamily* cache_saved_;
  CounterFamily* leases_granted_;
  CounterFamily* leases_expired_;
  CounterFamily* leases_rejected_;
  GaugeFamily* workers_;
  std::vector<std::string> tenants_;  // that have labels, kOtherTenants the last
  GaugeFamily* tenant_jobs_;
  GaugeFamily* tenant_tasks_;
  GaugeFamily* tenant_bytes_;
  GaugeFamily* blob_bytes_;
  GaugeFamily* blob_objects_;
  GaugeFamily* blob_free_;
  CounterFamily* blob_io_;
  CounterFamily* collected_;
  CounterFamily* collected_bytes_;
  HistogramFamily* store_seconds_;
  CounterFamily* store_errors_;
  GaugeFamily* executor_queue_;
  CounterFamily* rpc_requests_;
  HistogramFamily* rpc_seconds_;
  GaugeFamily* rpc_in_flight_;
  CounterFamily* connections_refused_;
  CounterFamily* certificate_reloads_;
  GaugeFamily* certificate_life_;
};

// Every method of the public API: {service, method}.
std::vector<std::vector<std::string>> ApiMethods();

}  // namespace lwq

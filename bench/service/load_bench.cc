// How a server stands under load, at several numbers of tasks held: jobs taken, leases and
// completions with 1,000 workers at work, how long heartbeats and GetJob take meanwhile, and what
// watchers cost. The workers and clients are simulated, the server is the product's own, on SQLite:
//   load_bench --server build/release/bin/lwq-server [--tasks 10000,100000] [--seconds 20]
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/hash.h"
#include "base/mutex.h"
#include "base/rpc/channel.h"
#include "base/rpc/grpc_status.h"
#include "bench/service/load_server.h"
#include "bench/service/load_tasks.h"
#include "proto/lwq/v1/artifact_service.grpc.pb.h"
#include "proto/lwq/v1/job_service.grpc.pb.h"
#include "proto/lwq/v1/model_service.grpc.pb.h"
#include "proto/lwq/v1/worker_service.grpc.pb.h"

namespace lwq::bench {
namespace {

constexpr int kLayers = 18;   // a job begins with some 40 tasks
constexpr int kClients = 8;   // threads that submit
constexpr int kThreads = 16;  // that drive the workers
constexpr int kWorkers = 1000;
constexpr int kWatchers = 2000;
constexpr int kStreamsAChannel = 200;

struct Stubs {
  explicit Stubs(const std::string& address)
      : channel(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), Alone())),
        jobs(v1::JobService::NewStub(channel)),
        workers(v1::WorkerService::NewStub(channel)) {}
  // Channels with the same arguments share a connection.
  static grpc::ChannelArguments Alone() {
    static std::atomic<int> number{0};
    grpc::ChannelArguments arguments;
    arguments.SetInt("lwq.bench", ++number);
    return arguments;
  }
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::JobService::Stub> jobs;
  std::unique_ptr<v1::WorkerService::Stub> workers;
};

template <typename Method, typename Stub, typename Request, typename Response>
absl::Status Call(Stub& stub, Method method, const Request& request, Response* response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  return FromGrpcStatus((stub.*method)(&context, request, response));
}

void Need(const absl::Status& status, const char* what) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", what, status.ToString().c_str());
  std::exit(1);
}

// Times of calls, from many threads.
class Latencies {
 public:
  void Add(absl::Duration took) {
    MutexLock lock(&mu_);
    milliseconds_.push_back(absl::ToDoubleMilliseconds(took));
  }
  // 0 without any.
  double Percentile(double p) {
    MutexLock lock(&mu_);
    if (milliseconds_.empty()) return 0;
    std::sort(milliseconds_.begin(), milliseconds_.end());
    return milliseconds_[static_cast<size_t>(p * static_cast<double>(milliseconds_.size() - 1))];
  }

 private:
  Mutex mu_;
  std::vector<double> milliseconds_ ABSL_GUARDED_BY(mu_);
};

// A worker between two calls.
struct SimWorker {
  std::string id, incarnation;
  Mutex mu;
  std::vector<v1::Lease> leases;  // under mu: heartbeats read them
};

class Load {
 public:
  Load(const std::string& binary, int tasks, int seconds)
      : server_(binary), tasks_(tasks), seconds_(seconds) {}

  void Run() {
    AddModel();
    Submit();
    const double idle = server_.ResidentMegabytes();
    Work();
    Watch(idle);
  }

 private:
  static void Print(const char* what, double value, const char* unit, const char* target) {
    std::printf("  %-44s %10.1f %-4s  %s\n", what, value, unit, target);
    std::fflush(stdout);
  }

  void AddModel() {
    Stubs stubs(server_.address());
    const std::string content = "a result";
    blob_.set_sha256(Sha256Hex(content));
    blob_.set_size_bytes(static_cast<int64_t>(content.size()));
    {
      const auto blobs = v1::BlobService::NewStub(stubs.channel);
      grpc::ClientContext context;
      v1::WriteBlobResponse response;
      const auto writer = blobs->WriteBlob(&context, &response);
      v1::WriteBlobRequest request;
      *request.mutable_blob() = blob_;
      request.set_data(content);
      request.set_finish_write(true);
      writer->Write(request);
      writer->WritesDone();
      Need(FromGrpcStatus(writer->Finish()), "storing a blob");
    }
    for (int i = 0; i < kWorkers; ++i) {
      auto worker = std::make_unique<SimWorker>();
      worker->id = absl::StrCat("w", i);
      worker->incarnation = RandomHex(16);
      v1::RegisterWorkerResponse registered;
      Need(Call(*stubs.workers, &v1::WorkerService::Stub::RegisterWorker,
                RegistrationOf(worker->id, worker->incarnation), &registered),
           "registering");
      workers_.push_back(std::move(worker));
    }
    const auto models = v1::ModelService::NewStub(stubs.channel);
    v1::CreateModelRequest request;
    request.set_model_id("m");
    request.mutable_source()->set_directory(server_.model_directory());
    v1::Model model;
    Need(Call(*models, &v1::ModelService::Stub::CreateModel, request, &model), "adding the model");
    TakeOne(stubs, *workers_[0]);
    FinishAll(stubs, *workers_[0]);
  }

  void Submit() {
    const int jobs = std::max(1, tasks_ / (2 * kLayers + 2));
    Latencies took;
    std::atomic<int> next{0};
    const double cpu = server_.CpuSeconds();
    const absl::Time start = absl::Now();
    RunThreads(kClients, [&](int) {
      Stubs stubs(server_.address());
      for (int number = next++; number < jobs; number = next++) {
        v1::Job job;
        const absl::Time sent = absl::Now();
        Need(Call(*stubs.jobs, &v1::JobService::Stub::CreateJob, JobRequest(number), &job),
             "submitting");
        took.Add(absl::Now() - sent);
        MutexLock lock(&mu_);
        jobs_.push_back(job.name());
        held_ += job.progress().tasks_total();
      }
    });
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    std::printf("%d jobs, %lld tasks to do\n", jobs, static_cast<long long>(held_));
    Print("jobs submitted", jobs / seconds, "/s", "300");
    Print("processor time of the server per job", 1e3 * (server_.CpuSeconds() - cpu) / jobs, "ms",
          "");
    Print("CreateJob, p99, 8 clients at once", took.Percentile(0.99), "ms", "");
    Print("memory of the server", server_.ResidentMegabytes(), "MB", "");
  }

  // The worker's next task, if there is one.
  bool TakeOne(Stubs& stubs, SimWorker& worker) {
    v1::LeaseTasksRequest request;
    request.set_worker_id(worker.id);
    request.set_incarnation(worker.incarnation);
    request.set_max_tasks(1);
    v1::LeaseTasksResponse response;
    const absl::Time sent = absl::Now();
    Need(Call(*stubs.workers, &v1::WorkerService::Stub::LeaseTasks, request, &response), "leasing");
    lease_.Add(absl::Now() - sent);
    MutexLock lock(&worker.mu);
    worker.leases.assign(response.leases().begin(), response.leases().end());
    leased_ += response.leases_size();
    return response.leases_size() > 0;
  }

  void FinishAll(Stubs& stubs, SimWorker& worker) {
    std::vector<v1::Lease> leases;
    {
      MutexLock lock(&worker.mu);
      leases.swap(worker.leases);
    }
    for (const v1::Lease& lease : leases) {
      v1::CompleteTaskRequest request;
      request.set_worker_id(worker.id);
      request.set_incarnation(worker.incarnation);
      request.set_task(lease.task());
      request.set_epoch(lease.epoch());
      request.set_completion_id(RandomHex(8));
      *request.mutable_output() = OutputOf(lease, server_.model_directory(), kLayers, blob_);
      v1::CompleteTaskResponse response;
      const absl::Time sent = absl::Now();
      const absl::Status done =
          Call(*stubs.workers, &v1::WorkerService::Stub::CompleteTask, request, &response);
      complete_.Add(absl::Now() - sent);
      if (done.ok()) ++completed_;
      if (!done.ok()) ++refused_;
    }
  }

  // As many heartbeats as the workers send, one every 10 s each, and as many looks at jobs.
  void Disturb(const std::atomic<bool>& stop) {
    Stubs stubs(server_.address());
    std::mt19937 random(1);
    for (size_t i = 0; !stop; ++i) {
      SimWorker& worker = *workers_[i % workers_.size()];
      v1::HeartbeatRequest beat;
      beat.set_worker_id(worker.id);
      beat.set_incarnation(worker.incarnation);
      {
        MutexLock lock(&worker.mu);
        for (const v1::Lease& lease : worker.leases) {
          v1::LeaseBeat& one = *beat.add_beats();
          one.set_task(lease.task());
          one.set_epoch(lease.epoch());
          one.set_progress(static_cast<int64_t>(i));
        }
      }
      v1::HeartbeatResponse answer;
      absl::Time sent = absl::Now();
      Need(Call(*stubs.workers, &v1::WorkerService::Stub::Heartbeat, beat, &answer), "a heartbeat");
      beat_.Add(absl::Now() - sent);
      v1::GetJobRequest get;
      get.set_name(jobs_[random() % jobs_.size()]);
      v1::Job job;
      sent = absl::Now();
      Need(Call(*stubs.jobs, &v1::JobService::Stub::GetJob, get, &job), "GetJob");
      get_.Add(absl::Now() - sent);
      absl::SleepFor(absl::Milliseconds(1000.0 * 10 / kWorkers) - (absl::Now() - sent));
    }
  }

  void DriveWorkers(int thread, absl::Time end) {
    Stubs stubs(server_.address());
    while (absl::Now() < end) {
      bool any = false;
      for (int i = thread; i < kWorkers && absl::Now() < end; i += kThreads) {
        FinishAll(stubs, *workers_[i]);
        any = TakeOne(stubs, *workers_[i]) || any;
      }
      if (!any) absl::SleepFor(absl::Milliseconds(10));
    }
  }

  void Work() {
    // Each worker has a task before it is measured.
    RunThreads(kThreads, [&](int thread) {
      Stubs stubs(server_.address());
      for (int i = thread; i < kWorkers; i += kThreads) TakeOne(stubs, *workers_[i]);
    });
    leased_ = completed_ = 0;
    std::atomic<bool> stop{false};
    std::thread disturbance([&] { Disturb(stop); });
    const double cpu = server_.CpuSeconds();
    const absl::Time start = absl::Now();
    RunThreads(kThreads,
               [&](int thread) { DriveWorkers(thread, start + absl::Seconds(seconds_)); });
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    stop = true;
    disturbance.join();
    Print("leases, 1,000 workers", static_cast<double>(leased_) / seconds, "/s", "500");
    Print("completions, 1,000 workers", static_cast<double>(completed_) / seconds, "/s", "500");
    if (refused_ > 0) Print("completions refused", static_cast<double>(refused_), "", "0");
    Print("processor time of the server", (server_.CpuSeconds() - cpu) / seconds, "", "");
    Print("LeaseTasks, p99", lease_.Percentile(0.99), "ms", "");
    Print("CompleteTask, p99", complete_.Percentile(0.99), "ms", "");
    Print("heartbeat meanwhile, p99", beat_.Percentile(0.99), "ms", "50");
    Print("GetJob meanwhile, p99", get_.Percentile(0.99), "ms", "5");
  }

  struct Watcher {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientAsyncReader<v1::JobEvent>> reader;
    v1::JobEvent event;
    int64_t events = 0;
  };

  void Watch(double idle) {
    grpc::CompletionQueue queue;
    std::vector<std::unique_ptr<Stubs>> stubs;
    std::vector<std::unique_ptr<Watcher>> watchers;
    std::atomic<int> begun{0};
    std::thread reader([&] {
      void* tag = nullptr;
      bool ok = false;
      while (queue.Next(&tag, &ok)) {
        auto* watcher = static_cast<Watcher*>(tag);
        if (!ok) continue;
        if (++watcher->events == 2) ++begun;  // the first is of the call's begin
        watcher->reader->Read(&watcher->event, watcher);
      }
    });
    const double before = server_.ResidentMegabytes();
    for (int i = 0; i < kWatchers; ++i) {
      if (i % kStreamsAChannel == 0) stubs.push_back(std::make_unique<Stubs>(server_.address()));
      watchers.push_back(std::make_unique<Watcher>());
      v1::WatchJobRequest request;
      // Of the newest jobs, which go on for longest.
      request.set_name(jobs_[jobs_.size() - 1 - static_cast<size_t>(i) % jobs_.size()]);
      watchers.back()->reader =
          stubs.back()->jobs->PrepareAsyncWatchJob(&watchers.back()->context, request, &queue);
      watchers.back()->reader->StartCall(watchers.back().get());
    }
    for (int i = 0; i < 200 && begun < kWatchers; ++i) absl::SleepFor(absl::Milliseconds(100));
    const double open = server_.ResidentMegabytes();
    Print("watchers that were told of their job", begun, "", "2000");
    Print("memory of the server with 2,000 watchers", open, "MB", "");
    Print("memory of 2,000 watchers", open - before, "MB", "300");
    Print("memory of the server before work began", idle, "MB", "");
    for (auto& watcher : watchers) watcher->context.TryCancel();
    absl::SleepFor(absl::Seconds(1));
    queue.Shutdown();
    reader.join();
  }

  template <typename Body>
  static void RunThreads(int count, const Body& body) {
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) threads.emplace_back([&body, i] { body(i); });
    for (std::thread& thread : threads) thread.join();
  }

  LoadServer server_;
  const int tasks_;
  const int seconds_;
  v1::BlobRef blob_;
  std::vector<std::unique_ptr<SimWorker>> workers_;
  Mutex mu_;
  std::vector<std::string> jobs_;
  int64_t held_ = 0;
  std::atomic<int64_t> leased_{0}, completed_{0}, refused_{0};
  Latencies lease_, complete_, beat_, get_;
};

int Main(int argc, char** argv) {
  std::string binary;
  std::vector<int> tasks = {10'000, 100'000};
  int seconds = 20;
  CLI::App app("Loads a server of its own with simulated clients, workers and watchers.");
  app.add_option("--server", binary, "lwq-server")->required()->check(CLI::ExistingFile);
  app.add_option("--tasks", tasks, "tasks held, one run for each")->delimiter(',');
  app.add_option("--seconds", seconds, "for which workers work");
  CLI11_PARSE(app, argc, argv);
  for (const int count : tasks) {
    std::printf("== %d tasks held\n  %-44s %10s %-4s  %s\n", count, "", "measured", "", "target");
    Load(binary, count, seconds).Run();
  }
  return 0;
}

}  // namespace
}  // namespace lwq::bench

int main(int argc, char** argv) { return lwq::bench::Main(argc, argv); }

// A state machine with a hand-set clock, a small model and answers made up for every task: what the
// scenario tests play on.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/hash.h"
#include "gtest/gtest.h"
#include "records/blob_names.h"
#include "server/dispatch/job_defaults.h"
#include "server/dispatch/progress.h"
#include "server/dispatch/task_key.h"
#include "server/dispatch/transitions.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {

inline v1::Model SmallModel(int layers) {
  v1::Model model;
  model.set_name("models/small");
  model.set_state(v1::Model::ACTIVE);
  model.mutable_source()->set_directory("/models/small");
  v1::ModelManifest& manifest = *model.mutable_manifest();
  manifest.set_digest(Sha256Hex("small"));
  manifest.set_family("llama");
  manifest.set_weight_bytes(1 << 20);
  manifest.mutable_inventory()->set_num_layers(layers);
  manifest.mutable_inventory()->set_weight_dtype("BF16");
  for (int l = 0; l < layers; ++l) {
    manifest.add_layer_digests(Sha256Hex(absl::StrCat("layer", l)));
    v1::InventoryUnit& unit = *manifest.mutable_inventory()->add_units();
    unit.set_name(absl::StrCat("layers.", l, ".mlp.down_proj"));
    unit.set_layer(l);
    unit.set_part(v1::PART_LAYER);
    v1::InventoryLinear& linear = *unit.add_linears();
    linear.set_module(absl::StrCat("model.layers.", l, ".mlp.down_proj"));
    linear.set_name("mlp.down_proj");
    linear.set_out_features(128);
    linear.set_in_features(128);
  }
  return model;
}

inline v1::Capability MakeCapability(const std::string& name, bool calibration, bool quantized,
                                     bool costs) {
  v1::Capability c;
  c.set_name(name);
  c.set_needs_calibration(calibration);
  c.set_needs_quantized(quantized);
  c.set_needs_hidden_states(quantized);
  c.set_gives_costs(costs);
  return c;
}

// The events of one process; commits always succeed.
class Scenario {
 public:
  // What every task takes of a worker's memory, and was to take.
  static constexpr int64_t kPeakBytes = 700, kForecastBytes = 800;

  explicit Scenario(int layers = 3, const DispatchOptions& options = Options())
      : model(SmallModel(layers)), state_(options) {
    state_.Load(model);
    AddDataset("datasets/builtin-mixed");
  }

  void AddDataset(const std::string& name) {
    v1::Dataset& dataset = datasets_[name];
    dataset.set_name(name);
    dataset.mutable_blob()->set_sha256(Sha256Hex("books"));
    dataset.set_kind(v1::Dataset::TEXT);
  }

  static DispatchOptions Options() { return {}; }

  absl::Status Run(const std::function<absl::Status(Draft&)>& transition) {
    Tick();
    Draft draft(state_, Now());
    LWQ_RETURN_IF_ERROR(transition(draft));
    for (const auto& [name, job] : draft.changes.jobs) {
      if (job) records[name] = *job;
    }
    for (const auto& entry : draft.changes.cache_puts) cache[entry.key()] = entry.output();
    for (const auto& artifact : draft.changes.artifacts) artifacts.push_back(artifact);
    for (const TaskCount& count : draft.effects.task_counts) ++counted[count.state];
    woken += draft.effects.tasks_ready;
    for (auto& [job, event] : draft.changes.events) events[job].push_back(event);
    jobs_written = draft.changes.jobs.size();
    tasks_written = draft.changes.tasks.size();
    state_.Apply(std::move(draft.changes), Now());
    untold_.insert(draft.effects.untold_tasks.begin(), draft.effects.untold_tasks.end());
    for (const std::string& job : draft.effects.plan_jobs) {
      if (!plan_later) Plan(job);
    }
    for (const std::string& job : draft.effects.rebuild_jobs) to_rebuild_.insert(job);
    for (const std::string& tenant : draft.effects.admit_tenants) {
      EXPECT_OK(Run([&](Draft& admission) {
        AdmitJobs(admission, tenant);
        return absl::OkStatus();
      }));
    }
    if (!rebuild_later) RebuildAll();
    if (!tell_later) TellAll();
    return absl::OkStatus();
  }

  // Until every job has heard of its tasks.
  void TellAll() {
    while (!untold_.empty()) {
      const std::string key = untold_.extract(untold_.begin()).value();
      EXPECT_OK(Run([&](Draft& draft) {
        TellJobs(draft, key);
        return absl::OkStatus();
      }));
    }
  }

  static std::string FormatOf(int bits) { return absl::StrCat("int", bits, "-g128"); }

  Moment Now() const { return {.wall_us = now_us + wall_offset_us, .steady_us = now_us}; }
  // What the server does each second, up to now.
  void Tick() {
    for (; ticked_us_ < now_us; ticked_us_ = std::min(ticked_us_ + 1'000'000, now_us)) {
      state_.AdvanceTo({.wall_us = ticked_us_ + wall_offset_us, .steady_us = ticked_us_});
    }
    state_.AdvanceTo(Now());
  }
  // The server itself stands still.
  void Stall(int64_t us) { ticked_us_ = now_us += us; }

  // What the cache gives: entries whose blobs are all there.
  CachedResults Cached() {
    for (auto it = cache.begin(); it != cache.end();) {
      it = Lost(it->second) ? cache.erase(it) : std::next(it);
    }
    return cache;
  }
  bool Lost(const v1::TaskOutput& output) const {
    return std::any_of(output.blobs().begin(), output.blobs().end(),
                       [&](const auto& b) { return lost_blobs.count(b.blob().sha256()) > 0; });
  }

  // What the server does for jobs of which a blob may be lost, or whose class has changed.
  void RebuildAll() {
    std::set<std::string> jobs;
    jobs.swap(to_rebuild_);
    for (const std::string& job : jobs) {
      std::set<std::string> lost;
      for (const std::string& key : records[job].tasks()) {
        auto task = state_.tasks().find(key);
        if (task != state_.tasks().end() && Lost(task->second.output())) lost.insert(key);
      }
      if (lost.empty() && !records[job].rebuilding()) {
        EXPECT_OK(Run([&](Draft& draft) {
          DismissDoubts(draft, job);
          return absl::OkStatus();
        }));
        continue;
      }
      ++num_rebuilds;
      const JobGraph graph = BuildFirstStage(InputOf(job, records[job].job().spec()));
      EXPECT_OK(Run([&](Draft& draft) { return RebuildJob(draft, job, graph, Cached(), lost); }));
    }
  }

  GraphInput InputOf(const std::string& job, const v1::JobSpec& spec) const {
    GraphInput input;
    input.salt = absl::StrCat(job, "/salt");
    input.spec = spec;
    input.model = &model;
    MemoryForecast& memory = input.memory;
    for (int64_t* bytes :
         {&memory.idle_bytes, &memory.fixed_bytes, &memory.calibrate_bytes, &memory.score_bytes,
          &memory.quantize_bytes, &memory.trial_bytes, &memory.evaluate_bytes, &memory.verify_bytes,
          &memory.preflight_bytes, &memory.total_bytes}) {
      *bytes = kForecastBytes;
    }
    input.engine.set_numerics_class(numerics_class);
    for (absl::string_view kind : TaskKinds()) {
      (*input.engine.mutable_versions())[std::string(kind)] = engine_version;
    }
    const auto record = records.find(job);
    if (record != records.end()) {
      input.engine = record->second.engine();
      input.salt = SaltOf(record->second);
    }
    input.datasets = datasets_;
    input.method =
        MakeCapability(spec.quantize().method(), spec.quantize().method() == "gptq", false, false);
    input.method.set_edits_tensors(spec.quantize().method() == "edits");
    auto rounds = trial_bits.find(job);
    input.max_trials = rounds == trial_bits.end() ? 0 : static_cast<int>(rounds->second.size());
    const bool full = spec.quantize().scorer() == "kl-full";
    const bool kl = full || spec.quantize().scorer() == "kl";
    input.scorer =
        MakeCapability(spec.quantize().scorer(), kl || spec.quantize().scorer() == "lim", kl, kl);
    input.scorer.set_measures_all_formats(full);
    for (const auto& unit : model.manifest().inventory().units()) {
      v1::UnitFormats& formats = input.products[unit.layer()].emplace_back();
      formats.set_unit(unit.name());
      for (int bits : {2, 3, 4, 8}) formats.add_formats(FormatOf(bits));
    }
    return input;
  }

  v1::JobSpec Spec(const std::string& method, const std::string& scorer, int64_t budget) const {
    v1::JobSpec spec;
    v1::QuantizeSpec& q = *spec.mutable_quantize();
    q.set_model(model.name());
    q.set_method(method);
    q.set_scorer(scorer);
    q.mutable_budget()->set_file_bytes(budget);
    q.mutable_evaluation()->set_text_dataset("datasets/builtin-mixed");
    FillDefaults(model.manifest(), q);
    return spec;
  }

  absl::Status Submit(const std::string& job, const v1::JobSpec& spec) {
    SubmitEvent event;
    event.job.set_name(job);
    *event.job.mutable_spec() = spec;
    event.job.set_tenant(model.tenant());
    event.job.set_priority(priority);
    event.salt = absl::StrCat(job, "/salt");
    event.graph = BuildFirstStage(InputOf(job, spec));
    event.cached = cache;
    return Run([&](Draft& draft) { return SubmitJob(draft, std::move(event)); });
  }

  v1::PlanSummary UniformPlan(int bits) const {
    v1::PlanSummary plan;
    for (const auto& unit : model.manifest().inventory().units()) {
      v1::UnitChoice& choice = *plan.add_units();
      choice.set_unit(unit.name());
      choice.set_layer(unit.layer());
      choice.set_format(FormatOf(bits));
    }
    return plan;
  }

  // Has plans of `trial_bits` measured first, then every unit gets `plan_bits` of its job.
  void Plan(const std::string& job) {
    const GraphInput input = InputOf(job, records[job].job().spec());
    std::vector<v1::PlanTrial> trials(records[job].job().trials().begin(),
                                      records[job].job().trials().end());
    if (trials.size() < trial_bits[job].size()) {
      const int bits = trial_bits[job][trials.size()];
      const JobGraph graph = BuildTrialStage(input, {UniformPlan(bits)}, /*judge=*/false);
      trials.emplace_back().set_task(graph.plan_tasks[0]);
      EXPECT_OK(Run(
          [&](Draft& draft) { return StartTrials(draft, records[job], trials, graph, cache); }));
      return;
    }
    const v1::PlanSummary plan = UniformPlan(plan_bits.count(job) > 0 ? plan_bits[job] : 4);
    const JobGraph graph = BuildLastStage(input, plan);
    EXPECT_OK(Run(
        [&](Draft& draft) { return FinishPlan(draft, records[job], plan, trials, graph, cache); }));
  }

  void Register(const std::string& worker, const std::string& incarnation) {
    v1::RegisterWorkerRequest request;
    request.set_worker_id(worker);
    request.set_incarnation(incarnation);
    for (const char* name : {"edits", "rtn", "gptq"}) request.add_quantizers()->set_name(name);
    for (const char* name : {"kl", "lim", "zd"}) request.add_scorers()->set_name(name);
    for (absl::string_view kind : TaskKinds()) {
      if (kind == without_kind) continue;
      v1::TaskKindVersion& known = *request.add_kinds();
      known.set_kind(std::string(kind));
      known.set_version(engine_version);
    }
    for (const std::string& family : families) request.add_families(family);
    request.set_numerics_class(numerics_class);
    request.set_operations_per_second(operations_per_second);
    EXPECT_OK(Run([&](Draft& draft) { return RegisterWorker(draft, request); }));
    state_.SawWorker(worker, now_us);
    incarnations[worker] = incarnation;
  }

  std::vector<v1::Lease> Lease(const std::string& worker, int count = 1) {
    v1::LeaseTasksRequest request;
    request.set_worker_id(worker);
    request.set_incarnation(incarnations[worker]);
    request.set_max_tasks(count);
    std::vector<v1::Lease> leases;
    state_.SawWorker(worker, now_us);
    EXPECT_OK(Run([&](Draft& draft) -> absl::Status {
      LWQ_ASSIGN_OR_RETURN(leases, LeaseTasks(draft, request));
      return absl::OkStatus();
    }));
    return leases;
  }

  static v1::TaskOutput OutputOf(const v1::Lease& lease) {
    v1::TaskOutput output;
    output.set_seconds(1);
    output.set_peak_anonymous_bytes(kPeakBytes);
    const v1::TaskSpec& spec = lease.spec();
    const auto add_blob = [&](const std::string& name) {
      v1::NamedBlob& blob = *output.add_blobs();
      blob.set_name(name);
      blob.mutable_blob()->set_sha256(Sha256Hex(name));
    };
    if (spec.has_preflight()) output.mutable_preflight();
    if (spec.has_calibrate()) {
      const v1::CalibrateTask& task = spec.calibrate();
      for (int l = task.first_layer(); l < task.end_layer(); ++l) {
        v1::LayerValues& values = *output.mutable_calibrate()->add_layers();
        values.set_layer(l);
        (*values.mutable_values())["layer-cosine"] = 0.5;
        add_blob(absl::StrCat("hidden.", l));
      }
      add_blob(absl::StrCat("state.", task.end_layer()));
    }
    if (spec.has_quantize()) {
      for (const v1::UnitFormats& unit : spec.quantize().units()) {
        for (const std::string& format : unit.formats()) {
          add_blob(UnitBlobName(unit.unit(), format));
          v1::LinearReport& linear = *output.mutable_quantize()->mutable_report()->add_linears();
          linear.set_unit(unit.unit());
          linear.set_format(format);
        }
      }
      output.mutable_quantize();
      if (spec.quantize().edits()) add_blob(EditsBlobName(spec.quantize().layer()));
    }
    if (spec.has_trial()) output.mutable_trial()->set_kl(1);
    if (spec.has_score()) {
      output.mutable_score()->set_layer(spec.score().layer());
      for (const v1::UnitFormats& unit : spec.score().units()) {
        for (const std::string& format : unit.formats()) {
          v1::UnitCost& cost = *output.mutable_score()->add_costs();
          cost.set_unit(unit.unit());
          cost.set_format(format);
        }
      }
    }
    if (spec.has_assemble()) {
      add_blob("model.safetensors");
      output.mutable_assemble()->set_weight_file_bytes(100);
    }
    if (spec.has_verify()) {
      output.mutable_verify();
      add_blob("lwq-manifest.json");
    }
    if (spec.has_evaluate()) {
      output.mutable_evaluate()->set_subject(spec.evaluate().subject());
      output.mutable_evaluate()->set_dataset(spec.evaluate().dataset_name());
      output.mutable_evaluate()->mutable_text();
    }
    return output;
  }

  absl::Status Complete(const std::string& worker, const v1::Lease& lease,
                        const std::string& completion = "") {
    return CompleteWith(worker, lease, OutputOf(lease), completion);
  }
  absl::Status CompleteWith(const std::string& worker, const v1::Lease& lease,
                            const v1::TaskOutput& output, const std::string& completion = "") {
    v1::CompleteTaskRequest request;
    request.set_worker_id(worker);
    request.set_incarnation(incarnations[worker]);
    request.set_task(lease.task());
    request.set_epoch(lease.epoch());
    request.set_completion_id(completion.empty() ? absl::StrCat("c", lease.epoch()) : completion);
    *request.mutable_output() = output;
    return Run([&](Draft& draft) { return CompleteTask(draft, request); });
  }

  absl::Status Release(const std::string& worker, const v1::Lease& lease) {
    v1::ReleaseTasksRequest request;
    request.set_worker_id(worker);
    request.set_incarnation(incarnations[worker]);
    v1::HeldLease& held = *request.add_leases();
    held.set_task(lease.task());
    held.set_epoch(lease.epoch());
    return Run([&](Draft& draft) { return ReleaseTasks(draft, request); });
  }

  absl::Status Fail(const std::string& worker, const v1::Lease& lease, const std::string& reason,
                    absl::StatusCode code = absl::StatusCode::kUnknown) {
    v1::FailTaskRequest request;
    request.set_worker_id(worker);
    request.set_incarnation(incarnations[worker]);
    request.set_task(lease.task());
    request.set_epoch(lease.epoch());
    request.mutable_failure()->set_reason(reason);
    request.mutable_failure()->set_code(static_cast<int>(code));
    request.mutable_failure()->set_message("made to fail");
    return Run([&](Draft& draft) { return FailTask(draft, request); });
  }

  v1::HeartbeatResponse Beat(const std::string& worker, const v1::Lease& lease,
                             const std::string& waits_for = "") {
    return SendBeat(worker, lease, ++beats_, 0, waits_for);
  }
  // In the middle of a step: no progress, but CPU time.
  v1::HeartbeatResponse BusyBeat(const std::string& worker, const v1::Lease& lease, double busy) {
    return SendBeat(worker, lease, beats_, busy);
  }
  v1::HeartbeatResponse SendBeat(const std::string& worker, const v1::Lease& lease,
                                 int64_t progress, double busy, const std::string& waits_for = "") {
    v1::HeartbeatRequest request;
    request.set_worker_id(worker);
    request.set_incarnation(incarnations[worker]);
    v1::LeaseBeat& beat = *request.add_beats();
    beat.set_task(lease.task());
    beat.set_epoch(lease.epoch());
    beat.set_progress(progress);
    beat.set_busy_seconds(busy);
    beat.set_waits_for(waits_for);
    Tick();
    std::set<std::string> touched;
    auto response = Heartbeat(state_, Now(), request, touched);
    EXPECT_OK(response);
    return response.ok() ? *response : v1::HeartbeatResponse();
  }

  void Reap() {
    EXPECT_OK(Run([&](Draft& draft) {
      ReapLeases(draft);
      return absl::OkStatus();
    }));
  }

  // Runs everything that is ready; the kinds in the order they ran.
  std::vector<std::string> Work(const std::string& worker, int limit = 1000) {
    std::vector<std::string> kinds;
    for (int i = 0; i < limit; ++i) {
      std::vector<v1::Lease> leases = Lease(worker);
      if (leases.empty()) break;
      kinds.emplace_back(KindOf(leases[0].spec()));
      EXPECT_OK(Complete(worker, leases[0]));
    }
    return kinds;
  }

  v1::Job::State StateOf(const std::string& job) { return records[job].job().state(); }
  const DispatchState& state() const { return state_; }

  v1::Model model;  // its tenant is that of jobs that are submitted
  v1::Job::Priority priority = v1::Job::PRIORITY_UNSPECIFIED;  // of such jobs
  int64_t now_us = 1'000'000'000;                              // of the steady clock
  int64_t wall_offset_us = 0;  // of the clock on the wall against it
  std::map<std::string, v1::JobRecord> records;
  CachedResults cache;
  std::vector<v1::Artifact> artifacts;
  std::map<std::string, std::vector<v1::JobEvent>> events;
  std::map<std::string, int> plan_bits;
  std::map<std::string, std::vector<int>> trial_bits;  // one round of one trial each
  std::map<std::string, std::string> incarnations;
  // Of workers that register, and of jobs that are submitted.
  std::string numerics_class = "cpu-1";
  double operations_per_second = 0;  // of workers that register; 0: they do not say
  int engine_version = 1;
  std::vector<std::string> families = {"llama"};
  std::string without_kind;
  std::map<int, int> counted;  // what happened to tasks, by TaskEvent.State
  int64_t woken = 0;           // polls, for tasks that became ready
  double busy_seconds = 0;
  std::set<std::string> lost_blobs;  // by digest
  bool rebuild_later = false;        // only when RebuildAll is called
  bool plan_later = false;           // only when Plan is called
  int num_rebuilds = 0;
  bool tell_later = false;                     // only when TellAll is called
  size_t jobs_written = 0, tasks_written = 0;  // by the last transition

 private:
  DispatchState state_;
  std::map<std::string, v1::Dataset> datasets_;
  std::set<std::string> to_rebuild_, untold_;
  int64_t ticked_us_ = 1'000'000'000;
  int64_t beats_ = 0;
};

inline int Count(const std::vector<std::string>& list, const std::string& what) {
  return static_cast<int>(std::count(list.begin(), list.end(), what));
}

}  // namespace lwq::testing

#include "tests/simulation/simulation.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/hash.h"
#include "server/store/memory_store.h"
#include "tests/simulation/client.h"
#include "tests/simulation/faults.h"
#include "tests/simulation/machine.h"
#include "tests/simulation/network.h"
#include "tests/simulation/promises.h"
#include "tests/simulation/worker.h"

namespace lwq::simulation {
namespace {

constexpr absl::Duration kTrouble = absl::Minutes(6);  // faults come until then
constexpr absl::Duration kPeace = absl::Hours(3);      // then every job has to end within
constexpr absl::Duration kLook = absl::Seconds(1);     // between looks for those who wait in vain
constexpr int kLookAtMemory = 8;                       // every so many looks
constexpr int kPatience = 3;                           // looks in a row
constexpr int64_t kManySteps = 3'000'000;
constexpr const char* kTenants[] = {"a", "b"};

v1::Model SmallModel(int num_layers) {
  v1::Model model;
  model.set_name("models/m");
  model.set_state(v1::Model::ACTIVE);
  model.mutable_source()->set_directory("/models/m");
  v1::ModelManifest& manifest = *model.mutable_manifest();
  manifest.set_digest(Sha256Hex("model"));
  manifest.set_family("llama");
  manifest.add_files()->set_name("config.json");
  v1::Inventory& inventory = *manifest.mutable_inventory();
  inventory.set_num_layers(num_layers);
  inventory.set_weight_dtype("F16");
  inventory.set_hidden_size(128);
  inventory.set_intermediate_size(128);
  inventory.set_vocab_size(256);
  inventory.set_num_heads(2);
  inventory.set_num_kv_heads(2);
  inventory.set_head_dim(64);
  inventory.set_max_positions(512);
  for (int layer = 0; layer < num_layers; ++layer) {
    manifest.add_layer_digests(Sha256Hex(absl::StrCat(layer)));
    v1::InventoryUnit& unit = *inventory.add_units();
    unit.set_name(absl::StrCat("layers.", layer, ".mlp.down_proj"));
    unit.set_layer(layer);
    unit.set_part(v1::PART_LAYER);
    v1::InventoryLinear& linear = *unit.add_linears();
    linear.set_module(absl::StrCat("model.layers.", layer, ".mlp.down_proj"));
    linear.set_out_features(128);
    linear.set_in_features(128);
  }
  return model;
}

class Simulation {
 public:
  Simulation(uint64_t seed, const RunOptions& options)
      : world_(seed, options.tells),
        clock_(&world_, absl::ZeroDuration()),
        blobs_(INT64_MAX, &clock_),
        faults_(Faults::Of(world_)),
        network_faults_(faults_.network),
        worker_faults_(faults_.worker),
        promises_(&world_, &rows_, &blobs_, &promised_) {
    medium_.rows = &rows_;
    medium_.blobs = &blobs_;
    medium_.store_faults = faults_.store;
    medium_.blob_faults = faults_.blob;
    medium_.meanwhile = faults_.meanwhile;
    medium_.is_shared = faults_.num_machines > 1;
    medium_.retention.blob_grace = absl::Seconds(60);
    medium_.plant = options.plant;
    // One has the half of the other's share and may have few jobs at work.
    TenantOptions& b = promised_.tenants["b"];
    b = {.weight = 0.5, .max_running_jobs = 1 + world_.Below(2)};
    medium_.dispatch = promised_;
    if (options.plant == Plant::kNoQuota) medium_.dispatch.tenants["b"].max_running_jobs = 0;
    if (options.plant == Plant::kStarving) medium_.dispatch.tenants["b"].weight = 1e-9;
    AddModel();
    AddMachines();
    AddWorkers();
    AddClients();
  }

  Outcome Go(uint64_t seed) {
    for (auto& machine : machines_) machine->Boot();
    for (auto& worker : workers_) worker->Start();
    for (auto& client : clients_) {
      world_.After(world_.Between(absl::ZeroDuration(), absl::Seconds(60)),
                   [&client] { client->Start(); });
    }
    Trouble();
    LookAround();
    RunUntil(kTrouble, /*or_content=*/false);
    Calm();
    RunUntil(kTrouble + kPeace, /*or_content=*/true);
    if (!world_.broken()) CheckEnd();
    Outcome run;
    run.seed = seed;
    run.broken = world_.broken();
    run.how = world_.how_broken();
    run.trace = world_.trace();
    run.steps = world_.num_steps();
    run.commits = promises_.num_commits();
    run.completions = promises_.num_completions();
    run.artifacts = promises_.num_artifacts();
    run.simulated = world_.now();
    run.faults = world_.faults();
    return run;
  }

 private:
  void AddModel() {
    std::vector<lwq::Write> writes;
    v1::Model model = SmallModel(1 + world_.Below(3));
    for (const char* tenant : kTenants) {
      model.set_name(absl::StrCat("models/", tenant));
      model.set_tenant(tenant);
      lwq::Write& write = writes.emplace_back();
      write.table = Table::kModels;
      write.record.key = model.name();
      write.record.tenant = tenant;
      model.SerializeToString(&write.record.value);
    }
    const BlobId text = *blobs_.Put("some text");
    v1::Dataset dataset;
    dataset.set_name("datasets/text");
    dataset.set_kind(v1::Dataset::TEXT);
    dataset.mutable_blob()->set_sha256(text.sha256);
    dataset.mutable_blob()->set_size_bytes(text.size_bytes);
    dataset.set_tenant(kEverybody);
    lwq::Write& write = writes.emplace_back();
    write.table = Table::kDatasets;
    write.record.key = dataset.name();
    write.record.tenant = kEverybody;
    dataset.SerializeToString(&write.record.value);
    rows_.Commit(writes).IgnoreError();
  }

  void AddMachines() {
    std::vector<Machine*> machines;
    for (int i = 0; i < faults_.num_machines; ++i) {
      machines_.push_back(std::make_unique<Machine>(
          &world_, &medium_, i,
          [this](const std::vector<lwq::Write>& writes) { promises_.Committed(writes); }));
      machines_.back()->set_may_crash(faults_.store.crash > 0);
      machines.push_back(machines_.back().get());
    }
    network_ = std::make_unique<Network>(&world_, &network_faults_, std::move(machines));
  }

  void AddWorkers() {
    const int num_workers = 1 + world_.Below(4);
    for (int i = 0; i < num_workers; ++i) {
      workers_.push_back(std::make_unique<Worker>(&world_, network_.get(), &promises_,
                                                  &worker_faults_, i, absl::StrCat("w", i)));
    }
  }

  void AddClients() {
    const int num_clients = 1 + world_.Below(4);
    for (int i = 0; i < num_clients; ++i) {
      v1::CreateJobRequest request;
      v1::QuantizeSpec& spec = *request.mutable_job()->mutable_spec()->mutable_quantize();
      const std::string tenant = kTenants[world_.Below(2)];
      spec.set_model(absl::StrCat("models/", tenant));
      spec.set_method(world_.Chance(0.5) ? "gptq" : "rtn");
      spec.set_allocator(world_.Chance(0.2) ? "lwq" : world_.Chance(0.5) ? "knapsack" : "uniform");
      spec.mutable_budget()->set_bits_per_weight(4.0 + 0.5 * world_.Below(3));
      spec.mutable_calibration()->set_dataset("datasets/text");
      spec.mutable_evaluation()->set_text_dataset("datasets/text");
      clients_.push_back(std::make_unique<Client>(&world_, network_.get(), &promises_,
                                                  &faults_.client, 100 + i, absl::StrCat("j", i),
                                                  tenant, std::move(request)));
    }
  }

  void RunUntil(absl::Duration end, bool or_content) {
    while (!world_.broken() && world_.RunNext(end)) {
      for (auto& machine : machines_) machine->AfterEvent();
      if (world_.num_steps() > kManySteps) world_.Break("end", "the run never comes to an end");
      if (or_content && AllContent() && promises_.all_ended() && promises_.is_tidy()) return;
    }
  }

  bool AllContent() const {
    return std::all_of(clients_.begin(), clients_.end(),
                       [](const auto& client) { return client->is_content(); });
  }

  // ---- Faults ----

  void Trouble() {
    if (world_.now() >= kTrouble || calm_) return;
    world_.After(world_.Between(absl::ZeroDuration(), 2 * faults_.every), [this] {
      if (calm_) return;
      Strike();
      Trouble();
    });
  }

  void Strike() {
    Machine& machine = *machines_[world_.Below(static_cast<int>(machines_.size()))];
    Worker& worker = *workers_[world_.Below(static_cast<int>(workers_.size()))];
    switch (faults_.Pick(world_)) {
      case Fault::kServerDies:
        if (!machine.is_up()) return;
        world_.Count("server dies");
        machine.Kill();
        machine.RestartAfter(world_.Between(absl::Milliseconds(500), absl::Seconds(60)));
        return;
      case Fault::kServerStops:
        if (!machine.is_up() || machine.is_paused()) return;
        world_.Count("server is stopped");
        machine.Terminate();
        machine.RestartAfter(world_.Between(absl::Milliseconds(500), absl::Seconds(20)));
        return;
      case Fault::kServerStandsStill:
        world_.Count("server stands still");
        machine.Pause(world_.Between(absl::Seconds(1), absl::Seconds(60)));
        return;
      case Fault::kClockJumps:
        world_.Count("clock jumps");
        machine.clock().JumpWall(world_.Between(-absl::Hours(1), absl::Hours(1)));
        return;
      case Fault::kWorkerDies:
        world_.Count("worker dies");
        worker.Kill();
        world_.After(world_.Between(absl::Milliseconds(100), absl::Seconds(90)),
                     [&worker] { worker.Start(); });
        return;
      case Fault::kWorkerStops:
        world_.Count("worker is stopped");
        worker.Terminate();
        world_.After(world_.Between(absl::Seconds(5), absl::Seconds(90)),
                     [&worker] { worker.Start(); });
        return;
      case Fault::kWorkerStandsStill:
        world_.Count("worker stands still");
        worker.Pause(world_.Between(absl::Seconds(5), absl::Seconds(120)));
        if (world_.Chance(0.3)) AddTwin(worker.id());
        return;
      case Fault::kCutOff: {
        world_.Count("network is cut");
        const bool is_worker = world_.Chance(0.5);
        const auto n = static_cast<int>(is_worker ? workers_.size() : clients_.size());
        network_->CutOff(world_.Below(n) + (is_worker ? 0 : 100),
                         world_.Between(absl::Seconds(1), absl::Seconds(60)));
        return;
      }
      case Fault::kBlobLost:
      case Fault::kBlobChanged:
        Damage(/*lost=*/world_.Chance(0.5));
        return;
    }
  }

  // Somebody starts the worker again while the old process stands still.
  void AddTwin(const std::string& id) {
    world_.Count("second process of a worker");
    workers_.push_back(std::make_unique<Worker>(&world_, network_.get(), &promises_,
                                                &worker_faults_, static_cast<int>(workers_.size()),
                                                id));
    workers_.back()->Start();
  }

  void Damage(bool lost) {
    const auto all = blobs_.List("", 1000);
    std::vector<BlobStat> candidates;
    for (const BlobStat& stat : *all) {
      if (stat.id != BlobIdOf("some text")) candidates.push_back(stat);
    }
    if (candidates.empty()) return;
    const BlobId id = candidates[world_.Below(static_cast<int>(candidates.size()))].id;
    world_.Count(lost ? "blob is lost" : "blob is changed");
    world_.Note(absl::StrCat("blob ", id.sha256.substr(0, 8), lost ? " is lost" : " is changed"));
    promises_.Damaged(id.sha256);
    if (lost) {
      blobs_.Delete(id).IgnoreError();
    } else {
      blobs_.FlipBit(id, world_.Below(static_cast<int>(id.size_bytes)));
    }
  }

  // No more faults; all that has ended is started again.
  void Calm() {
    world_.Note("no more faults");
    calm_ = true;
    network_faults_ = {};
    worker_faults_ = {};
    medium_.store_faults = {};
    medium_.blob_faults = 0;
    for (auto& client : clients_) client->Calm();
    KeepUp();
  }

  // Whoever watches over workers: those that ended are started, until it is over.
  void KeepUp() {
    for (auto& worker : workers_) {
      const bool has_twin = std::any_of(workers_.begin(), workers_.end(), [&](const auto& other) {
        return other != worker && other->id() == worker->id() && other->is_up();
      });
      if (!worker->is_up() && !has_twin) worker->Start();
    }
    world_.After(absl::Seconds(10), [this] { KeepUp(); });
  }

  // ---- Looks ----

  void LookAround() {
    world_.After(kLook, [this] {
      ++looks_;
      for (auto& machine : machines_) {
        SimServer* server = machine->server();
        const bool leads = server != nullptr && !machine->is_paused() &&
                           (server->leadership() == nullptr || Leads(*server));
        if (!leads) continue;
        if (server->is_idle()) waits_.Look(world_, promises_, *server);
        if (looks_ % kLookAtMemory == 0) CheckMemory(*server);
        if (faults_.collects && looks_ % faults_.collect_every == 0) server->Collect();
      }
      if (faults_.collects && looks_ % faults_.collect_every == 1) promises_.CheckBlobs();
      LookAround();
    });
  }

  // One that was replaced and does not know it yet is behind the store, and may be.
  bool Leads(SimServer& server) {
    const auto row = rows_.Get(Table::kLeader, "term");
    return !server.leadership()->lost() && row.ok() && row->version == server.leadership()->term();
  }

  void CheckMemory(SimServer& server) {
    server.scheduler().View([&](const DispatchState& state) {
      promises_.CheckMemory(state, server.scheduler().Now());
    });
  }

  void CheckEnd() {
    for (auto& client : clients_) {
      if (!client->is_content()) {
        world_.Break(
            "I1", absl::StrCat("the client of ", client->job(), " waits at ", client->seen(), ", ",
                               kPeace / absl::Hours(1), " h after the last fault"));
      }
    }
    promises_.CheckEnd(faults_.jobs_must_succeed);
  }

  World world_;
  MachineClock clock_;
  MemoryStore rows_;
  MemoryBlobStore blobs_;
  const Faults faults_;
  NetworkFaults network_faults_;
  WorkerFaults worker_faults_;
  Medium medium_;
  DispatchOptions promised_;  // what servers are to be given, and are but for a planted bug
  Promises promises_;
  std::vector<std::unique_ptr<Machine>> machines_;
  std::unique_ptr<Network> network_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::unique_ptr<Client>> clients_;
  WaitsInVain waits_{kPatience};
  int64_t looks_ = 0;
  bool calm_ = false;
};

}  // namespace

Outcome Simulate(uint64_t seed, const RunOptions& options) {
  Simulation simulation(seed, options);
  return simulation.Go(seed);
}

}  // namespace lwq::simulation

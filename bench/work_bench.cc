// What a default job computes and reads on models of three shapes, phase by phase, by the counts
// that forecasts go by (engine/plan/work_model.h); and scoring in full as it was before decision
// 0012: every format of every unit on 4,096 tokens. Prints tables in Markdown.
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/plan/menu.h"
#include "worker/engine/plan/work_model.h"

namespace lwq {
namespace {

// server/dispatch/job_defaults.cc, and the plans that are likely measured (task_work.cc).
constexpr TextSize kCalibration = {.tokens = 32768 + 1024 + 2 * 4096, .sequence = 512};
constexpr double kFitted = 32768;
constexpr TextSize kScored = {.tokens = 1024, .sequence = 512};
constexpr TextSize kScoredBefore = {.tokens = 4096, .sequence = 512};
constexpr TextSize kTrial = {.tokens = 4096, .sequence = 512};
constexpr TextSize kEvaluated = {.tokens = 16384, .sequence = 256};
constexpr int kTrials = 24 + 5;
constexpr double kMeasured = 2;     // formats of a unit that are measured
constexpr double kSourceBytes = 2;  // of a weight

struct Model {
  const char* name;
  testing::LlamaShape shape;
};
// The head is dense in the default profile.
constexpr Model kModels[] = {{"Llama-3.2-1B",
                              {.layers = 16,
                               .hidden = 2048,
                               .intermediate = 8192,
                               .heads = 32,
                               .kv_heads = 8,
                               .vocab = 128256}},
                             {"Llama-3.1-8B",
                              {.layers = 32,
                               .hidden = 4096,
                               .intermediate = 14336,
                               .heads = 32,
                               .kv_heads = 8,
                               .vocab = 128256,
                               .tied = false}},
                             {"Llama-2-7B",
                              {.layers = 32,
                               .hidden = 4096,
                               .intermediate = 11008,
                               .heads = 32,
                               .kv_heads = 32,
                               .vocab = 32000,
                               .tied = false}}};

struct Phase {
  std::string name;
  Work work;
};

Work Scoring(const WorkModel& model, int layers, double candidates, TextSize text) {
  Work work;
  for (int l = 0; l < layers; ++l) work += model.Exchange(Place::Layer(l), candidates, text);
  return work;
}

Work Quantizing(const ModelInventory& inventory, const WorkModel& model, const Menu& menu) {
  Work work;
  for (int l = 0; l < inventory.num_layers; ++l) {
    std::vector<const AllocationUnit*> units;
    std::vector<std::vector<const WeightFormat*>> formats;
    for (size_t u = 0; u < inventory.units.size(); ++u) {
      if (inventory.units[u].place != Place::Layer(l)) continue;
      units.push_back(&inventory.units[u]);
      formats.push_back(menu.units[u].formats);
    }
    work += model.Quantize(units, formats, {.calibrated = true, .refined = true});
  }
  return work;
}

// One fewer than the menu has: leaving a unit as it is costs nothing.
double FormatsOf(const Menu& menu) {
  return static_cast<double>(menu.units.front().formats.size()) - 1;
}

std::vector<Phase> PhasesOf(const ModelInventory& inventory, const Menu& menu) {
  const WorkModel model(&inventory);
  const int layers = inventory.num_layers;
  const double weights =
      static_cast<double>(inventory.num_quantizable_weights()) +
      static_cast<double>(inventory.hidden_size) * static_cast<double>(inventory.vocab_size);
  const double file_bytes = weights * kSourceBytes / 3;
  Work calibrate = model.Layers(0, layers, kCalibration) + model.SecondMoments(0, layers, kFitted);
  calibrate.encoded = kCalibration.tokens;
  return {
      {"calibrate", calibrate},
      {absl::StrCat("quantize, ", FormatsOf(menu), " formats"), Quantizing(inventory, model, menu)},
      {"score, before", Scoring(model, layers, 4 * FormatsOf(menu), kScoredBefore)},
      {"score, now", Scoring(model, layers, 4 * kMeasured, kScored)},
      {absl::StrCat("plan, ", kTrials, " trials"), model.Trial(kTrial) * kTrials},
      {"assemble", model.Assemble(file_bytes)},
      {"verify", model.Verify(file_bytes)},
      {"evaluate, source and artifact",
       model.EvaluateText(kEvaluated, kEvaluated.tokens, false) +
           model.EvaluateText(kEvaluated, kEvaluated.tokens, true)}};
}

int Main() {
  for (const auto& [name, shape] : kModels) {
    ModelInventory inventory = testing::LlamaInventory(shape);
    inventory.max_positions = 4096;
    const auto profile = FindProfile("vllm-lowbit");
    if (!profile.ok()) return 1;
    const auto menu = BuildMenu(inventory, **profile, {});
    if (!menu.ok()) return 1;
    std::printf(
        "| %s | products and moments, TFLOP | attention, TFLOP | weights read, GB | results, "
        "GB | in all, T operations |\n| --- | --- | --- | --- | --- | --- |\n",
        name);
    double before = 0, now = 0, others = 0;
    for (const Phase& phase : PhasesOf(inventory, *menu)) {
      const Work& work = phase.work;
      std::printf("| %s | %.1f | %.1f | %.1f | %.1f | %.1f |\n", phase.name.c_str(),
                  2e-12 * (work.products + work.moments + work.factor), 2e-12 * work.attention,
                  1e-9 * kSourceBytes * work.loaded, 1e-9 * work.stored, 1e-12 * work.Operations());
      double& sum = phase.name == "score, before" ? before
                    : phase.name == "score, now"  ? now
                                                  : others;
      sum += work.Operations();
    }
    std::printf(
        "\n%s: scoring takes 1/%.0f of what it took, and %.0f %% of the job where it took "
        "%.0f %%.\n\n",
        name, before / now, 100 * now / (now + others), 100 * before / (before + others));
  }
  return 0;
}

}  // namespace
}  // namespace lwq

int main() { return lwq::Main(); }

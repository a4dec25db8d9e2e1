// The tasks of a quantize job: what each is named by, and what it waits for.
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "records/plan_records.h"
#include "server/dispatch/job_defaults.h"
#include "server/dispatch/job_graph.h"

namespace lwq {
namespace {

using ::testing::ElementsAre;

// A job of two layers with GPTQ at 2 and 4 bits, on 2,048 tokens and the scorer's.
GraphInput InputWith(v1::Model& model, const v1::Capability& scorer, int64_t score_tokens) {
  model.set_name("models/m");
  v1::ModelManifest& manifest = *model.mutable_manifest();
  manifest.set_digest("m");
  for (int layer = 0; layer < 2; ++layer) {
    manifest.add_layer_digests("layer");
    v1::InventoryUnit& unit = *manifest.mutable_inventory()->add_units();
    unit.set_layer(layer);
    unit.set_name(absl::StrCat("layers.", layer, ".mlp.down_proj"));
  }
  manifest.mutable_inventory()->set_num_layers(2);
  GraphInput input;
  input.salt = "jobs/a";
  input.model = &model;
  v1::QuantizeSpec& spec = *input.spec.mutable_quantize();
  spec.set_model(model.name());
  spec.mutable_calibration()->set_num_tokens(2048);
  spec.mutable_calibration()->set_score_tokens(score_tokens);
  spec.mutable_calibration()->set_trial_tokens(512);
  spec.mutable_calibration()->set_judge_tokens(256);
  spec.mutable_evaluation();  // none
  FillDefaults(manifest, spec);
  input.datasets[spec.calibration().dataset()].set_kind(v1::Dataset::TEXT);
  input.method.set_name("gptq");
  input.method.set_needs_calibration(true);
  input.method.add_evidence("second-moments");
  input.scorer = scorer;
  for (const v1::InventoryUnit& unit : manifest.inventory().units()) {
    v1::UnitFormats& formats = input.products[unit.layer()].emplace_back();
    formats.set_unit(unit.name());
    formats.add_formats("int2-g128");
    formats.add_formats("int4-g128");
  }
  return input;
}

JobGraph GraphWith(const v1::Capability& scorer, int64_t score_tokens) {
  v1::Model model;
  return BuildFirstStage(InputWith(model, scorer, score_tokens));
}

v1::Capability Kl() {
  v1::Capability kl;
  kl.set_name("kl");
  kl.set_needs_quantized(true);
  kl.set_needs_hidden_states(true);
  kl.set_gives_costs(true);
  return kl;
}

std::map<std::string, std::string> ProductKeys(const JobGraph& graph) {
  for (const TaskNode& task : graph.tasks) {
    if (task.spec().has_quantize()) return {task.product_keys().begin(), task.product_keys().end()};
  }
  return {};
}

TEST(JobGraphTest, EachTaskNeedsTheMemoryOfItsKindUnderTheJobsCeiling) {
  v1::Model model;
  GraphInput input = InputWith(model, Kl(), 1024);
  input.memory.calibrate_bytes = 40;
  input.memory.quantize_bytes = 30;
  input.memory.score_bytes = 20;
  input.memory.fixed_bytes = 10;
  input.memory.total_bytes = 40;
  input.spec.mutable_quantize()->set_memory_bytes(50);
  std::map<std::string, int64_t> needs;
  for (const TaskNode& task : BuildFirstStage(input).tasks) {
    needs[task.kind()] = task.needs().memory_bytes();
    if (task.spec().has_preflight()) {
      EXPECT_EQ(task.spec().preflight().forecast_bytes(), 40) << "of all tasks";
    }
  }
  EXPECT_EQ(needs["calibrate"], 40);
  EXPECT_EQ(needs["quantize"], 30);
  EXPECT_EQ(needs["score"], 20);
}

// Results depend on how much is worked on at a time, which a ceiling decides: so do their names.
TEST(JobGraphTest, WhatACeilingChangesIsInTheTasksAndTheirKeys) {
  v1::Model model, other;
  const GraphInput plain = InputWith(model, Kl(), 1024);
  GraphInput input = InputWith(other, Kl(), 1024);
  input.memory.limits["calibrate"] = {.chunk_tokens = 512};
  input.memory.limits["score"] = {.chunk_tokens = 256};
  input.memory.limits["quantize"] = {.tile_weights = 1 << 20};
  const JobGraph before = BuildFirstStage(plain), after = BuildFirstStage(input);
  ASSERT_EQ(before.tasks.size(), after.tasks.size());
  for (size_t i = 0; i < before.tasks.size(); ++i) {
    const v1::TaskSpec &was = before.tasks[i].spec(), &is = after.tasks[i].spec();
    EXPECT_EQ(
        was.calibrate().chunk_tokens() + was.score().chunk_tokens() + was.quantize().tile_weights(),
        0)
        << "of no number, so that a ceiling that is high enough changes no key";
    EXPECT_EQ(is.calibrate().chunk_tokens(), is.has_calibrate() ? 512 : 0);
    EXPECT_EQ(is.score().chunk_tokens(), is.has_score() ? 256 : 0);
    EXPECT_EQ(is.quantize().tile_weights(), is.has_quantize() ? 1 << 20 : 0);
    EXPECT_EQ(before.tasks[i].key() == after.tasks[i].key(), is.has_preflight())
        << after.tasks[i].kind();
  }
  // Statistics alone: other chunks give other second moments, whatever the tiles.
  input.memory.limits.erase("quantize");
  EXPECT_NE(ProductKeys(BuildFirstStage(input)), ProductKeys(before));
  input.memory.limits.erase("calibrate");
  EXPECT_EQ(ProductKeys(BuildFirstStage(input)), ProductKeys(before));
}

TEST(JobGraphTest, ScorersTextComesBesidesWhatTheQuantizerIsFittedTo) {
  const v1::Capability kl = Kl();
  int calibrated = 0, scored = 0;
  for (const TaskNode& task : GraphWith(kl, 1024).tasks) {
    if (task.spec().has_calibrate()) {
      EXPECT_EQ(task.spec().calibrate().calibration().num_tokens(), 3072);
      EXPECT_EQ(task.spec().calibrate().held_out().score_tokens(), 1024);
      EXPECT_EQ(task.spec().calibrate().held_out().trial_tokens(), 0) << "no plan is tried";
      ++calibrated;
    }
    if (task.spec().has_quantize()) {
      EXPECT_EQ(task.spec().quantize().calibration().num_tokens(), 2048);
    }
    if (task.spec().has_score()) {
      EXPECT_EQ(task.spec().score().calibration().num_tokens(), 3072);
      EXPECT_EQ(task.spec().score().held_out().score_tokens(), 1024);
      ++scored;
    }
  }
  EXPECT_GT(calibrated, 0);
  EXPECT_GE(scored, 2);
  // How much is scored is no part of what a quantized layer is.
  const std::map<std::string, std::string> keys = ProductKeys(GraphWith(kl, 1024));
  EXPECT_EQ(keys.size(), 2);
  EXPECT_EQ(keys.count("layers.0.mlp.down_proj.int4-g128"), 1u);
  EXPECT_EQ(keys, ProductKeys(GraphWith(kl, 512)));
}

v1::PlanSummary PlanOf(const std::string& first, const std::string& second) {
  v1::PlanSummary plan;
  for (int layer = 0; layer < 2; ++layer) {
    v1::UnitChoice& unit = *plan.add_units();
    unit.set_layer(layer);
    unit.set_unit(absl::StrCat("layers.", layer, ".mlp.down_proj"));
    unit.set_format(layer == 0 ? first : second);
  }
  return plan;
}

constexpr char kTwo[] = "int2-g128";
constexpr char kFour[] = "int4-g128";

std::vector<std::string> DependencyKinds(const JobGraph& graph, const std::string& key) {
  std::map<std::string, std::string> kinds;
  for (const TaskNode& task : graph.tasks) kinds[task.key()] = task.kind();
  std::vector<std::string> result;
  for (const TaskNode& task : graph.tasks) {
    if (task.key() != key) continue;
    for (const auto& dependency : task.dependencies()) {
      result.push_back(kinds[dependency.key()]);
    }
  }
  return result;
}

TEST(JobGraphTest, ATrialReadsTheSourcesPredictionsAndTheLayersItNames) {
  v1::Model model;
  GraphInput input = InputWith(model, Kl(), 1024);
  input.max_trials = 2;
  const JobGraph graph =
      BuildTrialStage(input, {PlanOf(kTwo, kFour), PlanOf("dense", kFour)}, false);
  ASSERT_EQ(graph.plan_tasks.size(), 2u);
  EXPECT_THAT(DependencyKinds(graph, graph.plan_tasks[0]),
              ElementsAre("calibrate", "quantize", "quantize"));
  EXPECT_THAT(DependencyKinds(graph, graph.plan_tasks[1]), ElementsAre("calibrate", "quantize"))
      << "dense is the source's own";
  int quantized = 0;
  for (const TaskNode& task : graph.tasks) {
    quantized += task.spec().has_quantize() ? 1 : 0;
    if (task.spec().has_trial()) {
      EXPECT_EQ(task.phase(), v1::PLAN);
      EXPECT_EQ(task.spec().trial().calibration().num_tokens(), 2048 + 1024 + 512 + 512);
      EXPECT_EQ(task.spec().trial().held_out().score_tokens(), 1024);
      EXPECT_EQ(task.spec().trial().held_out().trial_tokens(), 512);
      EXPECT_EQ(task.spec().trial().held_out().judge_tokens(), 512);
      EXPECT_FALSE(task.spec().trial().judge());
    }
  }
  EXPECT_EQ(quantized, 2) << "those of the first stage, with all formats";
}

TEST(JobGraphTest, ATrialIsNamedByItsFormatsAndNotByWhatTheyWereThoughtToCost) {
  v1::Model model;
  GraphInput input = InputWith(model, Kl(), 1024);
  input.max_trials = 1;
  v1::PlanSummary plan = PlanOf(kTwo, kFour);
  const std::string key = BuildTrialStage(input, {plan}, false).plan_tasks[0];
  plan.mutable_units(0)->set_cost(0.5);
  plan.set_predicted_cost(0.5);
  plan.set_budget_bytes(1000);
  EXPECT_EQ(BuildTrialStage(input, {plan}, false).plan_tasks[0], key);
  EXPECT_NE(BuildTrialStage(input, {plan}, true).plan_tasks[0], key) << "other text";
  EXPECT_NE(BuildTrialStage(input, {PlanOf(kFour, kTwo)}, false).plan_tasks[0], key);
  (*input.spec.mutable_quantize()->mutable_method_options())["damping"] = "0.02";
  EXPECT_NE(BuildTrialStage(input, {plan}, false).plan_tasks[0], key) << "other codes";
}

// Edits are a product of a layer beside its units: the same whatever formats are wanted, and every
// task that reads one of the layer's units reads them.
TEST(JobGraphTest, AMethodsEditsGoWithTheLayersThatItQuantized) {
  v1::Model model;
  GraphInput input = InputWith(model, Kl(), 1024);
  input.method.set_edits_tensors(true);
  input.max_trials = 1;
  std::string edits;
  for (const TaskNode& task : BuildFirstStage(input).tasks) {
    if (task.spec().has_score()) {
      EXPECT_TRUE(task.spec().score().edited());
    }
    if (!task.spec().has_quantize()) continue;
    EXPECT_TRUE(task.spec().quantize().edits());
    EXPECT_EQ(task.product_keys_size(), 3);
    if (task.layer() == 0) edits = task.product_keys().at("layers.0.edits");
  }
  ASSERT_FALSE(edits.empty());
  input.products[0][0].mutable_formats()->RemoveLast();
  for (const TaskNode& task : BuildFirstStage(input).tasks) {
    if (!task.spec().has_quantize() || task.layer() != 0) continue;
    EXPECT_EQ(task.product_keys().at("layers.0.edits"), edits);
  }
  input.products[0][0].add_formats(kFour);
  const v1::PlanSummary plan = PlanOf(kTwo, "dense");
  std::map<std::string, int> seen;
  for (const JobGraph& graph :
       {BuildTrialStage(input, {plan}, false), BuildLastStage(input, plan)}) {
    for (const TaskNode& task : graph.tasks) {
      for (const v1::PlanSummary& edited :
           {task.spec().trial().plan(), task.spec().assemble().plan(),
            task.spec().verify().plan()}) {
        if (edited.units().empty()) continue;
        EXPECT_THAT(edited.edited_layers(), ElementsAre(0)) << task.kind();
        ++seen[task.kind()];
      }
    }
  }
  EXPECT_EQ(seen, (std::map<std::string, int>{{"assemble", 1}, {"trial", 1}, {"verify", 1}}));
  // Of a method that edits nothing, keys hold nothing of all this.
  const std::string trial = BuildTrialStage(input, {plan}, false).plan_tasks[0];
  input.method.set_edits_tensors(false);
  EXPECT_NE(BuildTrialStage(input, {plan}, false).plan_tasks[0], trial);
}

// The quantized units build on the method's evidence alone, so jobs with other scorers share them.
TEST(JobGraphTest, CalibrationCollectsWhatMethodAndScorerDeclare) {
  std::vector<std::string> keys;
  for (const std::string evidence : {"layer-angle", "second-moments"}) {
    v1::Model model;
    v1::Capability scorer;
    scorer.set_name("ranks");
    scorer.set_needs_calibration(true);
    scorer.add_evidence(evidence);
    const GraphInput input = InputWith(model, scorer, 0);
    const std::set<std::string> declared = {evidence, "second-moments"};
    std::set<std::string> segments;
    for (const TaskNode& task : BuildLastStage(input, PlanOf(kTwo, kFour)).tasks) {
      if (task.spec().has_calibrate()) {
        const auto& collected = task.spec().calibrate().evidence();
        EXPECT_EQ(std::set<std::string>(collected.begin(), collected.end()), declared);
        EXPECT_EQ(collected.size(), static_cast<int>(declared.size()));
        EXPECT_FALSE(task.spec().calibrate().hidden_states());
        segments.insert(task.key());
      }
      if (task.spec().has_score()) {
        EXPECT_EQ(segments.count(task.dependencies(0).key()), 1u);
      }
      if (!task.spec().has_quantize()) continue;
      for (const auto& [blob, key] : task.product_keys()) keys.push_back(blob + key);
    }
  }
  std::sort(keys.begin(), keys.end());
  const std::set<std::string> distinct(keys.begin(), keys.end());
  EXPECT_EQ(keys.size(), 2 * distinct.size());
}

TEST(JobGraphTest, TrialsOfAJobThatOnlyRanksHaveTextAndFormatsOfTheirOwn) {
  v1::Model model;
  v1::Capability zd;
  zd.set_name("zd");
  GraphInput input = InputWith(model, zd, 1024);
  input.method = v1::Capability();
  input.max_trials = 2;
  EXPECT_TRUE(RunsSource(input));
  std::map<int, int> formats;  // by layer
  for (const TaskNode& task :
       BuildTrialStage(input, {PlanOf(kTwo, kFour), PlanOf(kFour, kFour)}, false).tasks) {
    if (task.spec().has_calibrate()) {
      EXPECT_EQ(task.spec().calibrate().held_out().score_tokens(), 0) << "nothing is measured";
      EXPECT_EQ(task.spec().calibrate().held_out().trial_tokens(), 512);
      EXPECT_TRUE(task.spec().calibrate().hidden_states());
      EXPECT_EQ(task.spec().calibrate().evidence_size(), 0);
    }
    if (task.spec().has_quantize()) {
      formats[task.layer()] += task.spec().quantize().units(0).formats_size();
    }
  }
  EXPECT_EQ(formats[0], 2);
  EXPECT_EQ(formats[1], 1);
}

// Parts that are no whole sequences would share one with their neighbours.
TEST(JobGraphTest, EveryPartOfTheTextIsWholeSequences) {
  v1::Model model;
  GraphInput input = InputWith(model, Kl(), 100);
  input.max_trials = 2;
  input.spec.mutable_quantize()->mutable_calibration()->set_sequence_length(512);
  model.mutable_manifest()->mutable_inventory()->set_max_positions(384);
  int calibrated = 0;
  for (const TaskNode& task : BuildFirstStage(input).tasks) {
    if (!task.spec().has_calibrate()) continue;
    ++calibrated;
    const v1::CalibrateTask& calibrate = task.spec().calibrate();
    EXPECT_EQ(calibrate.held_out().score_tokens(), 384);  // of 100
    EXPECT_EQ(calibrate.held_out().trial_tokens(), 768);  // of 512
    EXPECT_EQ(calibrate.held_out().judge_tokens(), 384);  // of 256
    // 2,048 tokens are five sequences and a part of one.
    EXPECT_EQ(calibrate.calibration().num_tokens(), 6 * 384 + 384 + 768 + 384);
  }
  EXPECT_GT(calibrated, 0);
}

TEST(JobGraphTest, AssemblyAndProofCutTheFilesAlike) {
  v1::Model model;
  GraphInput input = InputWith(model, Kl(), 1024);
  input.spec.mutable_quantize()->set_max_shard_bytes(1'000'000);
  int found = 0;
  for (const TaskNode& task : BuildLastStage(input, PlanOf(kTwo, kFour)).tasks) {
    if (task.spec().has_assemble()) {
      EXPECT_EQ(task.spec().assemble().max_shard_bytes(), 1'000'000);
      ++found;
    }
    if (task.spec().has_verify()) {
      EXPECT_EQ(task.spec().verify().max_shard_bytes(), 1'000'000);
      ++found;
    }
  }
  EXPECT_EQ(found, 2);
}

// A task of less than two layers would spend its time on handing over hidden states; more of them
// the fewer operations they are.
TEST(LayersPerSegment, IsAtLeastTwoAndAtMostAll) {
  v1::ModelManifest manifest;
  manifest.mutable_inventory()->set_num_layers(24);
  for (int layer = 0; layer < 24; ++layer) {
    v1::InventoryUnit& unit = *manifest.mutable_inventory()->add_units();
    unit.set_layer(layer);
    v1::InventoryLinear& linear = *unit.add_linears();
    linear.set_out_features(8192);
    linear.set_in_features(6272);  // 51.4 M weights, as 2048 x 5632 has
  }
  EXPECT_EQ(LayersPerSegment(manifest, 1 << 20), 2);
  EXPECT_EQ(LayersPerSegment(manifest, 32768), 2);
  EXPECT_EQ(LayersPerSegment(manifest, 4096), 3);
  EXPECT_EQ(LayersPerSegment(manifest, 16), 24);
}

// Where no head is a unit of its own the embedding is the head's weight too: its statistics are the
// head's, and it is quantized and scored like any layer.
TEST(JobGraphTest, AnEmbeddingAmongTheProductsIsQuantizedAndScored) {
  v1::Model model;
  GraphInput input = InputWith(model, Kl(), 1024);
  const int layer = RecordedLayer(Place::Embedding());
  v1::UnitFormats& formats = input.products[layer].emplace_back();
  formats.set_unit("embed_tokens");
  formats.add_formats("gguf-q4_k");
  int quantized = 0, scored = 0;
  for (const TaskNode& task : BuildFirstStage(input).tasks) {
    if (task.spec().has_calibrate()) {
      EXPECT_TRUE(task.spec().calibrate().head_evidence());
    }
    if (task.layer() != layer) continue;
    quantized += task.spec().has_quantize();
    scored += task.spec().has_score();
  }
  EXPECT_EQ(quantized, 1);
  EXPECT_EQ(scored, 1);
}

}  // namespace
}  // namespace lwq

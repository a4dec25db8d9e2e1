#include "server/dispatch/job_graph.h"

#include <map>
#include <string>

#include "gtest/gtest.h"

namespace lwq {
namespace {

TEST(FillDefaultsTest, ScoredTextIsNeverMoreThanTheCalibrationText) {
  v1::ModelManifest manifest;
  v1::QuantizeSpec spec;
  spec.mutable_calibration()->set_num_tokens(1024);
  FillDefaults(manifest, spec);
  EXPECT_EQ(spec.calibration().score_tokens(), 1024);
}

TEST(FillDefaultsTest, SequencesFitTheModel) {
  v1::ModelManifest manifest;
  manifest.mutable_inventory()->set_max_positions(256);
  v1::QuantizeSpec spec;
  FillDefaults(manifest, spec);
  EXPECT_EQ(spec.calibration().sequence_length(), 256);
  EXPECT_EQ(spec.calibration().num_tokens(), 32768);
}

// A job of two layers with GPTQ at 2 and 4 bits, on 2,048 tokens and the scorer's.
JobGraph GraphWith(const v1::Capability& scorer, int64_t score_tokens) {
  v1::Model model;
  model.set_name("models/m");
  v1::ModelManifest& manifest = *model.mutable_manifest();
  manifest.set_digest("m");
  for (int layer = 0; layer < 2; ++layer) {
    manifest.add_layer_digests("layer");
    manifest.mutable_inventory()->add_units()->set_layer(layer);
  }
  manifest.mutable_inventory()->set_num_layers(2);
  GraphInput input;
  input.job = "jobs/a";
  input.model = &model;
  v1::QuantizeSpec& spec = *input.spec.mutable_quantize();
  spec.set_model(model.name());
  spec.add_bits(2);
  spec.add_bits(4);
  spec.mutable_calibration()->set_num_tokens(2048);
  spec.mutable_calibration()->set_score_tokens(score_tokens);
  FillDefaults(manifest, spec);
  input.datasets[spec.calibration().dataset()].set_kind(v1::Dataset::TEXT);
  input.method.set_name("gptq");
  input.method.set_needs_calibration(true);
  input.scorer = scorer;
  return BuildFirstStage(input);
}

std::map<int, std::string> WidthKeys(const JobGraph& graph) {
  for (const TaskNode& task : graph.tasks) {
    if (task.spec().has_quantize()) return {task.width_keys().begin(), task.width_keys().end()};
  }
  return {};
}

TEST(JobGraphTest, ScorersTextComesBesidesWhatTheQuantizerIsFittedTo) {
  v1::Capability kl;
  kl.set_name("kl");
  kl.set_needs_quantized(true);
  kl.set_gives_costs(true);
  int calibrated = 0, scored = 0;
  for (const TaskNode& task : GraphWith(kl, 1024).tasks) {
    if (task.spec().has_calibrate()) {
      EXPECT_EQ(task.spec().calibrate().calibration().num_tokens(), 3072);
      EXPECT_EQ(task.spec().calibrate().score_tokens(), 1024);
      ++calibrated;
    }
    if (task.spec().has_quantize()) {
      EXPECT_EQ(task.spec().quantize().calibration().num_tokens(), 2048);
    }
    if (task.spec().has_score()) {
      EXPECT_EQ(task.spec().score().calibration().num_tokens(), 3072);
      EXPECT_EQ(task.spec().score().score_tokens(), 1024);
      ++scored;
    }
  }
  EXPECT_GT(calibrated, 0);
  EXPECT_GE(scored, 2);
  // How much is scored is no part of what a quantized layer is.
  const std::map<int, std::string> keys = WidthKeys(GraphWith(kl, 1024));
  EXPECT_EQ(keys.size(), 2);
  EXPECT_EQ(keys, WidthKeys(GraphWith(kl, 512)));
}

}  // namespace
}  // namespace lwq

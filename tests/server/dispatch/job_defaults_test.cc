#include "server/dispatch/job_defaults.h"

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

// By whatever client: `lwqctl` and Python name no text either.
TEST(FillDefaultsTest, AJobIsMeasuredUnlessItAsksForNothing) {
  v1::QuantizeSpec spec, none;
  FillDefaults(v1::ModelManifest(), spec);
  EXPECT_EQ(spec.evaluation().text_dataset(), "datasets/builtin-held-out");
  EXPECT_EQ(spec.evaluation().text_tokens(), 4096);
  none.mutable_evaluation();
  FillDefaults(v1::ModelManifest(), none);
  EXPECT_EQ(none.evaluation().text_dataset(), "");
}

}  // namespace
}  // namespace lwq

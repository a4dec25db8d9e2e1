// A score task by `kl`: which formats it measures, and what follows for the others. The same task
// by `kl-full`, which measures them all, is the judge.
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_model.h"
#include "tests/worker/runner/local_blobs.h"
#include "worker/engine/device/device.h"
#include "worker/engine/score/cost_curve.h"
#include "worker/runner/task_runner.h"

namespace lwq {
namespace {

using Costs = std::map<std::string, double>;  // by format

constexpr char kUnit[] = "layers.0.mlp.down_proj";

class ScoreTaskTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = absl::StrCat(::testing::TempDir(), "/score_task_test_",
                              ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    model_.set_directory(absl::StrCat(directory_, "/model"));
    ASSERT_OK(testing::WriteTinyModel({}, model_.directory()));
    LWQ_ASSERT_OK_AND_ASSIGN(device_, MakeDevice({.device = "cpu", .num_threads = 1}));
    blobs_ = std::make_unique<testing::LocalBlobs>(directory_);
    calibration_.mutable_dataset()->set_sha256(LWQ_SOURCE_DIR "/examples/calibration/books.txt");
    calibration_.set_dataset_kind(v1::Dataset::TEXT);
    calibration_.set_num_tokens(256);
    calibration_.set_sequence_length(64);
    held_out_.set_score_tokens(128);
    recipe_.set_method("rtn");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  absl::StatusOr<v1::TaskOutput> Run(v1::TaskSpec spec) {
    v1::Lease lease;
    *lease.mutable_spec() = std::move(spec);
    for (const v1::TaskInput& input : inputs_) *lease.add_inputs() = input;
    TaskContext context;
    context.device = device_.get();
    context.blobs = blobs_.get();
    context.lease = &lease;
    context.progress = [](double, const std::string&) { return absl::OkStatus(); };
    return RunTask(context);
  }

  // What calibrating and then quantizing one unit leave for tasks that build on them.
  void Prepare(const std::vector<std::string>& formats) {
    v1::TaskSpec calibrating;
    v1::CalibrateTask& calibrate = *calibrating.mutable_calibrate();
    *calibrate.mutable_model() = model_;
    *calibrate.mutable_calibration() = calibration_;
    *calibrate.mutable_held_out() = held_out_;
    calibrate.set_end_layer(2);
    calibrate.set_hidden_states(true);
    calibrate.add_evidence("layer-cosine");
    Keep("calibrate", std::move(calibrating));

    v1::TaskSpec quantizing;
    v1::QuantizeTask& quantize = *quantizing.mutable_quantize();
    *quantize.mutable_model() = model_;
    *quantize.mutable_recipe() = recipe_;
    AddUnit(formats, quantize.mutable_units());
    Keep("quantize", std::move(quantizing));
  }

  Costs Score(const std::string& scorer, const std::vector<std::string>& formats) {
    v1::TaskSpec spec;
    v1::ScoreTask& task = *spec.mutable_score();
    *task.mutable_model() = model_;
    *task.mutable_calibration() = calibration_;
    *task.mutable_held_out() = held_out_;
    *task.mutable_recipe() = recipe_;
    task.set_scorer(scorer);
    AddUnit(formats, task.mutable_units());
    const absl::StatusOr<v1::TaskOutput> output = Run(std::move(spec));
    EXPECT_OK(output);
    Costs costs;
    if (!output.ok()) return costs;
    for (const v1::UnitCost& cost : output->score().costs()) costs[cost.format()] = cost.cost();
    return costs;
  }

  // The error that the quantizer reported of the unit's only linear.
  double ErrorOf(const std::string& format) const {
    for (const v1::LinearReport& linear : inputs_.at(1).output().quantize().report().linears()) {
      if (linear.format() == format) return linear.relative_weight_error();
    }
    return 0;
  }

 private:
  void Keep(const std::string& role, v1::TaskSpec spec) {
    LWQ_ASSERT_OK_AND_ASSIGN(v1::TaskOutput output, Run(std::move(spec)));
    v1::TaskInput& input = inputs_.emplace_back();
    input.set_role(role);
    *input.mutable_output() = std::move(output);
  }

  static void AddUnit(const std::vector<std::string>& formats,
                      google::protobuf::RepeatedPtrField<v1::UnitFormats>* units) {
    v1::UnitFormats& unit = *units->Add();
    unit.set_unit(kUnit);
    for (const std::string& format : formats) unit.add_formats(format);
  }

  std::string directory_;
  v1::ModelInput model_;
  v1::CalibrationInput calibration_;
  v1::HeldOutText held_out_;
  v1::Recipe recipe_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<testing::LocalBlobs> blobs_;
  std::vector<v1::TaskInput> inputs_;
};

// Errors of weights do not tell what rounding inputs does, so nothing follows from them.
TEST_F(ScoreTaskTest, OfThreeFormatsOfEightBitsEachIsMeasured) {
  const std::vector<std::string> formats = {"fp8-row-a8", "int8-row-a8", "int8-g128"};
  ASSERT_NO_FATAL_FAILURE(Prepare(formats));
  const Costs all = Score("kl-full", formats);
  ASSERT_EQ(all.size(), formats.size());
  for (const auto& [format, cost] : all) EXPECT_GT(cost, 0) << format;
  EXPECT_EQ(Score("kl", formats), all);
}

// Those between the measured ones follow from their own errors, whatever stands beside them.
TEST_F(ScoreTaskTest, FormatsThatRoundInputsAreMeasuredBesideACurveOfTheOthers) {
  const std::vector<std::string> grids = {"int2-g128", "int3-g128", "int4-g128", "int8-g128"};
  std::vector<std::string> formats = grids;
  formats.insert(formats.end() - 1, {"fp8-row-a8", "int8-row-a8"});
  ASSERT_NO_FATAL_FAILURE(Prepare(formats));
  const Costs all = Score("kl-full", formats), found = Score("kl", formats);
  ASSERT_EQ(found.size(), formats.size());
  for (const char* measured : {"int2-g128", "int4-g128", "fp8-row-a8", "int8-row-a8"}) {
    EXPECT_EQ(found.at(measured), all.at(measured)) << measured;
  }
  std::vector<double> errors;
  for (const std::string& format : grids) errors.push_back(ErrorOf(format));
  ASSERT_THAT(FormatsToMeasure(errors), ::testing::ElementsAre(0, 2));
  const std::vector<double> expected =
      CostsFromErrors(errors, {0, 2}, {all.at("int2-g128"), all.at("int4-g128")});
  for (size_t f = 0; f < grids.size(); ++f) {
    EXPECT_DOUBLE_EQ(found.at(grids[f]), expected[f]) << grids[f];
  }
  EXPECT_NE(found.at("int3-g128"), all.at("int3-g128")) << "the case shows nothing";
}

}  // namespace
}  // namespace lwq

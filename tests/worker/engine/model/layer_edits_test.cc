#include "worker/engine/model/layer_edits.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_devices.h"

namespace lwq::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A linear "a" of [2, 2] and a norm "n".
class TwoTensors : public WeightSource {
 public:
  absl::Status ReadLinear(absl::string_view, MatrixView out) const override {
    const float values[] = {1, 2, 3, 4};
    for (int64_t r = 0; r < 2; ++r) std::copy_n(values + 2 * r, 2, out.Row(r));
    return absl::OkStatus();
  }
  absl::Status ReadDense(absl::string_view, int64_t, MatrixView out) const override {
    out.Row(0)[0] = 7;
    out.Row(0)[1] = 8;
    return absl::OkStatus();
  }
  bool HasDense(absl::string_view tensor) const override { return tensor == "n"; }
};

std::vector<float> Values(const Matrix& m) { return {m.data(), m.data() + m.size()}; }

TEST(LayerEditsTest, RowsAndColumnsAreScaledAndTensorsReplaced) {
  const TwoTensors source;
  LayerEdits edits;
  edits.linears["a"] = {.rows = {1, 10}, .columns = {0.5, 2}};
  edits.tensors["n"] = {0.25, 0.75};
  const auto edited = MakeEditedWeights(&source, &edits, DType::kF32);
  Matrix a(2, 2), n(1, 2);
  ASSERT_OK(edited->ReadLinear("a", a.view()));
  EXPECT_THAT(Values(a), ElementsAre(0.5, 4, 15, 80));
  ASSERT_OK(edited->ReadLinear("b", a.view()));
  EXPECT_THAT(Values(a), ElementsAre(1, 2, 3, 4));
  ASSERT_OK(edited->ReadDense("n", 0, n.view()));
  EXPECT_THAT(Values(n), ElementsAre(0.25, 0.75));
  ASSERT_OK(edited->ReadDense("m", 0, n.view()));
  EXPECT_THAT(Values(n), ElementsAre(7, 8));
  EXPECT_TRUE(edited->HasDense("n"));

  const auto device = MakeDevice({.device = "cpu", .num_threads = 1});
  ASSERT_OK(device.status());
  LWQ_ASSERT_OK_AND_ASSIGN(const auto on_device, (*device)->NewMatrix(2, 2));
  ASSERT_OK(edited->LoadLinear("a", device->get(), on_device->view()));
  ASSERT_OK((*device)->Download(on_device->view(), a.view()));
  EXPECT_THAT(Values(a), ElementsAre(0.5, 4, 15, 80));
}

// What an artifact stores is what a trial has to see.
TEST(LayerEditsTest, ScaledWeightsAreRoundedToTheDtype) {
  const TwoTensors source;
  LayerEdits edits;
  edits.linears["a"].columns = {1.0f / 3, 1};
  const auto edited = MakeEditedWeights(&source, &edits, DType::kBF16);
  Matrix a(2, 2);
  ASSERT_OK(edited->ReadLinear("a", a.view()));
  EXPECT_THAT(Values(a), ElementsAre(0.333984375f, 2, 1, 4));
  edits.linears["a"].columns = {1, 30000};
  const auto over = MakeEditedWeights(&source, &edits, DType::kF16);
  EXPECT_THAT(over->ReadLinear("a", a.view()),
              FailsWith("NON_FINITE_WEIGHTS", HasSubstr("row 1, column 1 is 120000")));
}

TEST(LayerEditsTest, EditsOfAnotherShapeAreRefused) {
  const TwoTensors source;
  LayerEdits edits;
  edits.linears["a"].columns = {1, 2, 3};
  edits.tensors["n"] = {1, 2, 3};
  const auto edited = MakeEditedWeights(&source, &edits, DType::kF32);
  Matrix a(2, 2), n(1, 2);
  EXPECT_EQ(edited->ReadLinear("a", a.view()).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(edited->ReadDense("n", 0, n.view()).code(), absl::StatusCode::kInternal);
  LinearScales rows{.rows = {1, 2}, .columns = {}};
  EXPECT_EQ(ScaleRows(rows, 1, a.view()).code(), absl::StatusCode::kInternal);
  EXPECT_OK(ScaleRows(rows, 0, a.view()));
}

}  // namespace
}  // namespace lwq::testing

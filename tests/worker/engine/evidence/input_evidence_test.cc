#include "worker/engine/evidence/input_evidence.h"

#include "tests/testing/collected_evidence.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

using testing::CollectedEvidence;
using ::testing::HasSubstr;

class InputEvidenceTest : public ::testing::Test {
 protected:
  InputEvidenceTest() {
    layer_.inputs = {{"mlp", 64},
                     {.name = "experts.0", .features = 64, .routed = true, .pooled = 0},
                     {.name = "experts_hidden.0", .features = 96, .routed = true}};
  }
  InputEvidence Find(size_t input, double tokens) {
    CollectedEvidence evidence(nullptr);
    evidence.values["routed-tokens.experts.0"] = tokens;
    evidence.values["routed-tokens.experts_hidden.0"] = tokens;
    const auto found = EvidenceFor(layer_, layer_.inputs[input], evidence);
    EXPECT_OK(found);
    return found.ok() ? *found : InputEvidence{};
  }
  LayerSpec layer_;
};

TEST_F(InputEvidenceTest, InputsStandForThemselvesWhereTheyAreFed) {
  EXPECT_EQ(Find(0, 0).input, &layer_.inputs[0]);
  EXPECT_EQ(Find(1, 16).input, &layer_.inputs[1]);
  EXPECT_EQ(Find(1, 16).num_tokens, 16);
  EXPECT_EQ(Find(1, 16).note, "");
  EXPECT_EQ(Find(2, 24).input, &layer_.inputs[2]);
}

TEST_F(InputEvidenceTest, StarvedExpertsTakeWhatAllTokensMakeOfTheirInput) {
  const InputEvidence found = Find(1, 15);
  EXPECT_EQ(found.input, &layer_.inputs[0]);
  EXPECT_THAT(found.note, HasSubstr("15 tokens for 64 features, fitted to all"));
  EXPECT_EQ(Find(1, 0).input, &layer_.inputs[0]);
}

TEST_F(InputEvidenceTest, BehindTheirGatesNothingStandsIn) {
  const InputEvidence found = Find(2, 23);
  EXPECT_EQ(found.input, nullptr);
  EXPECT_THAT(found.note, HasSubstr("23 tokens for 96 features, rounded to nearest"));
}

TEST_F(InputEvidenceTest, ACalibrationThatCountedNothingIsAnError) {
  const CollectedEvidence evidence(nullptr);
  EXPECT_FALSE(EvidenceFor(layer_, layer_.inputs[1], evidence).ok());
}

}  // namespace
}  // namespace lwq

#include "worker/engine/artifact/linear_coding.h"

#include "tests/testing/status_matchers.h"
#include "worker/engine/format/grid.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;

TEST(LinearCodingTest, EachKindOfArtifactHasItsOwn) {
  EXPECT_EQ(CodingOf(ArtifactFormatDefs::compressed_tensors).mark(), ".weight_scale");
  EXPECT_EQ(CodingOf(ArtifactFormatDefs::gptq).mark(), ".qweight");
}

TEST(LinearCodingTest, AGroupThatIsTheRowIsTheRow) {
  EXPECT_TRUE(SameStorage(*GridFormat::Find(4, 64, true), *GridFormat::Find(4, 0, true), 64));
  EXPECT_FALSE(SameStorage(*GridFormat::Find(4, 64, true), *GridFormat::Find(4, 0, true), 128));
  EXPECT_FALSE(SameStorage(*GridFormat::Find(4, 64, true), *GridFormat::Find(4, 64, false), 64));
  EXPECT_FALSE(SameStorage(*GridFormat::Find(4, 64, true), *GridFormat::Find(3, 64, true), 64));
  EXPECT_FALSE(SameStorage(*GridFormat::WithRoundedInputs(), *GridFormat::Find(8, 0, true), 64));
  EXPECT_FALSE(SameStorage(*DenseFormat(), *GridFormat::Find(4, 0, true), 64));
}

TEST(LinearCodingTest, WhatIsNotDeclaredIsRefused) {
  const FoundLinear found{GridFormat::Find(4, 0, true), 32, 64, {}};
  EXPECT_OK(CheckDeclared("m", found, {DenseFormat(), GridFormat::Find(4, 64, true)}));
  EXPECT_THAT(CheckDeclared("m", found, {GridFormat::Find(4, 32, true)}),
              FailsWith("CONFIG_MISMATCH", HasSubstr("m is stored 4-bit by row")));
}

}  // namespace
}  // namespace lwq

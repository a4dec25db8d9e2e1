#include "server/dispatch/progress.h"

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace lwq {
namespace {

v1::Job JobOf(int linears) {
  v1::Job job;
  for (int i = 0; i < linears; ++i) {
    job.add_layers()->add_linears()->set_module(
        absl::StrCat("model.layers.0.mlp.experts.", i, ".gate_up_proj", std::string(60, 'x')));
  }
  return job;
}

// The event of a job's end is a message as others: its watchers must see it.
TEST(ProgressTest, AJobOfManyLinearsFitsAMessage) {
  EXPECT_EQ(WithoutItems(JobOf(1000)).layers_size(), 1000);
  const v1::Job large = WithoutItems(JobOf(40'000));
  EXPECT_EQ(large.layers_size(), 0);
  ASSERT_EQ(large.warnings_size(), 1);
  EXPECT_LT(large.ByteSizeLong(), 3u << 20);
}

}  // namespace
}  // namespace lwq

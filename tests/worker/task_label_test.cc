#include "worker/task_label.h"

#include "gmock/gmock.h"

namespace lwq {
namespace {

TEST(TaskLabelTest, NamesWhatIsDoneAndForWhom) {
  v1::Lease lease;
  lease.set_task("3f2a90c1d4e5ffffffffffff");
  lease.mutable_spec()->mutable_quantize()->set_layer(0);
  lease.add_jobs("jobs/j-1");
  lease.add_jobs("jobs/j-2");
  EXPECT_EQ(TaskLabel(lease), "task=3f2a90c1d4e5 kind=quantize layer=0 job=j-1,j-2");
  lease.mutable_spec()->mutable_score()->set_layer(-1);
  EXPECT_EQ(TaskLabel(lease), "task=3f2a90c1d4e5 kind=score layer=lm_head job=j-1,j-2");
  lease.mutable_spec()->mutable_calibrate()->set_first_layer(4);
  lease.mutable_spec()->mutable_calibrate()->set_end_layer(8);
  EXPECT_EQ(TaskLabel(lease), "task=3f2a90c1d4e5 kind=calibrate layer=4-7 job=j-1,j-2");
}

TEST(TaskLabelTest, IsOneLineWhateverAServerSends) {
  v1::Lease lease;
  lease.set_task("a\nb");
  lease.add_jobs("jobs/\x1b[2J");
  EXPECT_EQ(TaskLabel(lease), "task=a\\x0ab kind=none job=\\x1b[2J");
}

}  // namespace
}  // namespace lwq

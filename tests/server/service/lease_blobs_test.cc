#include "server/service/lease_blobs.h"

#include "gtest/gtest.h"

namespace lwq::testing {
namespace {

constexpr Moment kNow = {1'000'000, 1'000'000};

// A task that reads `dataset` and what the task "before" left, leased or not.
v1::TaskRecord Task(const std::string& key, const std::string& dataset, int64_t epoch) {
  v1::TaskRecord task;
  task.set_key(key);
  task.set_kind("calibrate");
  task.mutable_spec()->mutable_calibrate()->mutable_calibration()->mutable_dataset()->set_sha256(
      dataset);
  task.add_dependencies()->set_key("before");
  task.set_state(epoch > 0 ? v1::TaskRecord::LEASED : v1::TaskRecord::READY);
  task.set_epoch(epoch);
  task.set_worker("w");
  return task;
}

v1::TaskRecord Before() {
  v1::TaskRecord task;
  task.set_key("before");
  task.set_kind("calibrate");
  task.set_state(v1::TaskRecord::DONE);
  task.mutable_output()->add_blobs()->mutable_blob()->set_sha256("of-before");
  return task;
}

TEST(LeaseBlobsTest, WhatALeasedTaskReadsMayBeReadAndNothingElse) {
  DispatchState state{DispatchOptions()};
  state.Load(Before(), kNow);
  state.Load(Task("waits", "others", 0), kNow);
  LeaseBlobs blobs;
  EXPECT_FALSE(blobs.IsRead(state, "of-before")) << "nobody has a lease";
  state.Load(Task("a", "text", 7), kNow);
  EXPECT_TRUE(blobs.IsRead(state, "text"));
  EXPECT_TRUE(blobs.IsRead(state, "of-before"));
  EXPECT_FALSE(blobs.IsRead(state, "others"));
  EXPECT_FALSE(blobs.IsRead(state, ""));
}

TEST(LeaseBlobsTest, WithItsLeaseTheRightEnds) {
  DispatchState state{DispatchOptions()};
  state.Load(Before(), kNow);
  state.Load(Task("a", "text", 7), kNow);
  state.Load(Task("b", "text-2", 8), kNow);
  LeaseBlobs blobs;
  ASSERT_TRUE(blobs.IsRead(state, "text"));
  Changes changes;
  changes.tasks["a"] = Task("a", "text", 0);
  state.Apply(changes, kNow);
  EXPECT_FALSE(blobs.IsRead(state, "text"));
  EXPECT_TRUE(blobs.IsRead(state, "of-before")) << "the other task reads it too";
  // Handed out again, to read something else; nobody asked in between.
  ASSERT_TRUE(blobs.IsRead(state, "text-2"));
  changes.tasks["b"] = Task("b", "text-3", 9);
  state.Apply(changes, kNow);
  EXPECT_FALSE(blobs.IsRead(state, "text-2"));
  EXPECT_TRUE(blobs.IsRead(state, "text-3"));
}

}  // namespace
}  // namespace lwq::testing

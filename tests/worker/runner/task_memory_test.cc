#include "worker/runner/task_memory.h"

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/model/decoder.h"
#include "worker/engine/model/head_pass.h"

namespace lwq {
namespace {

TaskContext Context(int64_t worker, const v1::Lease* lease) {
  TaskContext context;
  context.memory_bytes = worker;
  context.lease = lease;
  return context;
}

TEST(TaskMemoryTest, TheLowerCeilingHolds) {
  v1::Lease lease;
  EXPECT_EQ(CeilingOf(Context(0, &lease)), 0);
  EXPECT_EQ(CeilingOf(Context(5, &lease)), 5);
  lease.set_memory_bytes(3);
  EXPECT_EQ(CeilingOf(Context(0, &lease)), 3);
  EXPECT_EQ(CeilingOf(Context(5, &lease)), 3);
  EXPECT_EQ(CeilingOf(Context(2, &lease)), 2);
}

TEST(TaskMemoryTest, ALowCeilingMakesChunksSmaller) {
  LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec,
                           ReadDecoderSpec(LWQ_SOURCE_DIR "/tests/golden/decoder/tiny"));
  const MemoryForecast plain = ForecastWorkerMemory(SizesOf(spec), {});
  EXPECT_EQ(plain.limits.chunk_tokens, Decoder::kChunkTokens);
  v1::Lease lease;
  EXPECT_EQ(LimitsFor(Context(0, &lease), "trial", spec, {}), WorkLimits());
  lease.set_memory_bytes(plain.fixed_bytes);
  EXPECT_LT(LimitsFor(Context(0, &lease), "trial", spec, {}).chunk_tokens,
            plain.limits.chunk_tokens);
}

// The forecast's sizes of a part of the head are head_pass.h's.
TEST(TaskMemoryTest, ForecastsKnowHowMuchOfAHeadIsHeld) {
  for (const int64_t hidden : {64, 576, 2048, 8192}) {
    DecoderSpec spec;
    spec.hidden_size = hidden;
    spec.vocab_size = 128256;
    const MemoryForecast f = ForecastWorkerMemory(SizesOf(spec), {});
    const int64_t weights = TokensPerTile(spec) * hidden, rows = RowsPerTile(spec);
    EXPECT_GE(f.head_bytes, 4 * (3 * weights + 2 * rows * TokensPerTile(spec) + rows * hidden));
  }
}

}  // namespace
}  // namespace lwq

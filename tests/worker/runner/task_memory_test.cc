#include "worker/runner/task_memory.h"

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/runner/local_blobs.h"
#include "worker/engine/device/device.h"
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

// An evaluation of a directory: no server knows its sizes, so the worker looks after its own
// ceiling.
TEST(TaskMemoryTest, AnEvaluationThatNobodyPlannedKeepsToTheCeilingOrIsRefused) {
  LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec,
                           ReadDecoderSpec(LWQ_SOURCE_DIR "/tests/golden/decoder/tiny"));
  const MemoryForecast plain = ForecastWorkerMemory(SizesOf(spec), {});
  v1::Lease lease;
  for (const auto& [ceiling, expected] :
       {std::pair(int64_t{0}, Decoder::kChunkTokens),
        std::pair(plain.evaluate_bytes, Decoder::kChunkTokens),
        std::pair(plain.evaluate_bytes - 1, Decoder::kChunkTokens / 2)}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const int64_t chunk_tokens,
                             ChunkTokensOfEvaluation(Context(ceiling, &lease), spec, {}));
    EXPECT_EQ(chunk_tokens, expected) << ceiling;
  }
  EXPECT_THAT(ChunkTokensOfEvaluation(Context(plain.fixed_bytes, &lease), spec, {}),
              testing::FailsWith("MEMORY_INFEASIBLE", ::testing::HasSubstr("raise it")));
}

TEST(TaskMemoryTest, EveryDecoderTakesTheTasksChunksAndKeepsItsStatesInTheScratchDirectory) {
  LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec,
                           ReadDecoderSpec(LWQ_SOURCE_DIR "/tests/golden/decoder/tiny"));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto device, MakeDevice({.device = "cpu", .num_threads = 1}));
  testing::LocalBlobs blobs("/scratch");
  TaskContext context;
  context.device = device.get();
  context.blobs = &blobs;
  LWQ_ASSERT_OK_AND_ASSIGN(const auto decoder,
                           OpenDecoder(context, spec, nullptr, ComputeType::kF32, 300));
  EXPECT_EQ(decoder->chunk_tokens(), 300);
  EXPECT_EQ(decoder->scratch_directory(), blobs.ScratchDirectory());
  LWQ_ASSERT_OK_AND_ASSIGN(const auto plain,
                           OpenDecoder(context, spec, nullptr, ComputeType::kF32, 0));
  EXPECT_EQ(plain->chunk_tokens(), WorkLimits().chunk_tokens);
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

TEST(TaskMemoryTest, WhatIsLeftOfTheCeilingIsTheDecodersAndNothingWithoutOne) {
  LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec,
                           ReadDecoderSpec(LWQ_SOURCE_DIR "/tests/golden/decoder/tiny"));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto device, MakeDevice({.device = "cpu", .num_threads = 1}));
  testing::LocalBlobs blobs("/scratch");
  const int64_t needed = ForecastWorkerMemory(SizesOf(spec), {}).trial_bytes;
  v1::Lease lease;
  for (const auto& [ceiling, spare] :
       {std::pair(int64_t{0}, int64_t{0}), std::pair(needed, int64_t{0}),
        std::pair(8 * needed, 6 * needed)}) {  // an eighth stays free
    TaskContext context = Context(ceiling, &lease);
    context.device = device.get();
    context.blobs = &blobs;
    LWQ_ASSERT_OK_AND_ASSIGN(const auto decoder,
                             OpenDecoder(context, spec, nullptr, ComputeType::kF32, 0));
    UseSpareMemory(context, "trial", SizesOf(spec), {}, *decoder);
    EXPECT_EQ(decoder->spare_states_bytes(), spare);
    EXPECT_EQ(decoder->spare_weights_bytes(), 0) << "a trial meets each layer once";
    context.uses_spare = false;
    LWQ_ASSERT_OK_AND_ASSIGN(const auto after,
                             OpenDecoder(context, spec, nullptr, ComputeType::kF32, 0));
    UseSpareMemory(context, "trial", SizesOf(spec), {}, *after);
    EXPECT_EQ(after->spare_states_bytes(), 0);
  }
}

TEST(TaskMemoryTest, AfterMemoryRanOutATaskTakesHalfUntilThereIsNoLess) {
  v1::TaskSpec trial, quantize, verify;
  trial.mutable_trial()->set_chunk_tokens(600);
  EXPECT_TRUE(TakeLess(trial));
  EXPECT_EQ(trial.trial().chunk_tokens(), 300);
  EXPECT_TRUE(TakeLess(trial));
  EXPECT_EQ(trial.trial().chunk_tokens(), 256);
  EXPECT_FALSE(TakeLess(trial));
  quantize.mutable_quantize();
  EXPECT_TRUE(TakeLess(quantize));
  EXPECT_EQ(quantize.quantize().tile_weights(), WorkLimits().tile_weights / 2);
  verify.mutable_verify();
  EXPECT_FALSE(TakeLess(verify));
}

}  // namespace
}  // namespace lwq

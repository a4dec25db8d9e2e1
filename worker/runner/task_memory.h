// How much a task works on at a time: what its specification says, where a job was planned; else
// what the memory ceiling leaves (engine/plan/memory_model.h).
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/engine/model/decoder.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/weight_source.h"
#include "worker/engine/plan/memory_model.h"
#include "worker/runner/task_runner.h"

namespace lwq {

// The lower of the two ceilings; 0 where there is none.
int64_t CeilingOf(const TaskContext& context);

// A model's sizes as forecasts read them.
ModelInventory SizesOf(const DecoderSpec& spec);

// Tokens that an evaluation of `spec` takes at a time under the ceiling, which nobody planned: its
// model is a directory that the server does not know. RESOURCE_EXHAUSTED "MEMORY_INFEASIBLE" where
// even the least is too much.
absl::StatusOr<int64_t> ChunkTokensOfEvaluation(const TaskContext& context, const DecoderSpec& spec,
                                                const MemoryQuestion& question);

// Lets the decoder of a task of `kind` use what the ceiling leaves beside what the task is forecast
// to take, less an eighth of the ceiling: for states on the device and weights that stay prepared.
// Where there is no ceiling, nothing: memory that nobody counted is not the task's. Nor where
// memory ran out once (TaskContext::uses_spare).
void UseSpareMemory(const TaskContext& context, absl::string_view kind, const ModelInventory& sizes,
                    const MemoryQuestion& question, Decoder& decoder);

// Makes what `spec` says a task works on at a time smaller, after it ran out of memory; false where
// there is nothing smaller. Results differ in their last bits at most.
bool TakeLess(v1::TaskSpec& spec);

// A decoder that takes `chunk_tokens` at a time (0: the engine's own number) and keeps what it
// keeps of all tokens in a file, as every task's does.
absl::StatusOr<std::unique_ptr<Decoder>> OpenDecoder(const TaskContext& context, DecoderSpec spec,
                                                     const WeightSource* weights,
                                                     ComputeType compute, int64_t chunk_tokens);

}  // namespace lwq

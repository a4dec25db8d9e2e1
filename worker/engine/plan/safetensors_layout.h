// The bytes of a safetensors file before any tensor exists: header text, offsets, size. The planner
// forecasts with it and the writer writes by it, so forecast and file cannot differ.
// Format: docs/formats/safetensors.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/engine/tensor/dtype.h"

namespace lwq {

struct TensorSpec {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;

  int64_t size_bytes() const {
    int64_t n = SizeOf(dtype);
    for (int64_t d : shape) n *= d;
    return n;
  }
};

// One file: tensors in the reference writer's order (alignment descending, then name), compact JSON
// header with {"format":"pt"}, padded with spaces to a multiple of 8.
struct SafetensorsLayout {
  std::vector<TensorSpec> tensors;  // in file order
  std::vector<int64_t> offsets;     // of each, relative to the data section
  std::string header;               // the 8 length bytes and the JSON, padded
  int64_t file_bytes = 0;
};
SafetensorsLayout LayOutSafetensors(std::vector<TensorSpec> tensors);

// A sharded checkpoint. `groups` are tensors that stay together (all tensors of one linear), placed
// greedily in the order given; a shard is closed when the next group would take its file over
// `max_shard_bytes` (0: one file). Names: model.safetensors, or model-00001-of-0000N.safetensors
// with `index_json` for model.safetensors.index.json.
struct CheckpointLayout {
  struct File {
    std::string name;
    SafetensorsLayout layout;
  };
  std::vector<File> files;
  std::string index_json;    // empty when there is one file
  int64_t weight_bytes = 0;  // sum of file_bytes: what a budget in bytes counts
};
CheckpointLayout LayOutCheckpoint(const std::vector<std::vector<TensorSpec>>& groups,
                                  int64_t max_shard_bytes);

}  // namespace lwq

// Blocks of GGUF's types and 8-bit floats on the CPU: a block's codes first, in one pass over its
// bytes, then its values, sub-block by sub-block.
#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/cpu/cpu_space.h"
#include "worker/engine/tensor/fp8.h"
#include "worker/engine/tensor/half.h"

namespace lwq {
namespace {

constexpr int64_t kRowsPerTask = 4;

void DequantizeBlock(const BlockLayout& layout, const uint8_t* block, float* out) {
  uint8_t codes[kMaxBlockSize];
  UnpackBlockCodes(layout, block, codes);
  const float scale = F16ToFloat(BlockLayout::HalfAt(block, layout.scale_at));
  float min = 0;
  if (layout.min_at >= 0) min = F16ToFloat(BlockLayout::HalfAt(block, layout.min_at));
  if (layout.min_added) min = -min;
  for (int begin = 0; begin < layout.block_size; begin += layout.sub_block_size) {
    const int j = begin / layout.sub_block_size;
    const float step = scale * static_cast<float>(layout.SubScale(block, j));
    const float offset = min * static_cast<float>(layout.SubMin(block, j));
    for (int i = begin; i < begin + layout.sub_block_size; ++i) {
      out[i] = step * static_cast<float>(layout.Level(codes[i])) - offset;
    }
  }
}

}  // namespace

absl::Status CpuDevice::DequantizeBlocks(DeviceView<const uint8_t> blocks,
                                         const BlockLayout& layout, DeviceView<float> weight) {
  LWQ_RETURN_IF_ERROR(CheckBlocks(blocks, layout, weight));
  pool_.ParallelForBlocks(weight.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const uint8_t* block = Row(blocks, r);
      for (int64_t k = 0; k < weight.cols; k += layout.block_size, block += layout.block_bytes) {
        DequantizeBlock(layout, block, Row(weight, r) + k);
      }
    }
  });
  return absl::OkStatus();
}

absl::Status CpuDevice::DequantizeE4M3(DeviceView<const uint8_t> codes,
                                       DeviceView<const float> scales, DeviceView<float> weight) {
  LWQ_RETURN_IF_ERROR(CheckE4M3(codes, scales, weight));
  pool_.ParallelForBlocks(weight.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float scale = Row(scales, r)[0];
      for (int64_t k = 0; k < weight.cols; ++k) {
        Row(weight, r)[k] = scale * E4M3ToFloat(Row(codes, r)[k]);
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace lwq

#include "worker/engine/gguf/block_fit.h"

#include <algorithm>

#include "worker/engine/gguf/reference_fit.h"
#include "worker/engine/gguf/search_fit.h"

namespace lwq {
namespace {

double WeightedError(const GgufTypeDef& type, const GgufBlock& block, const float* values,
                     const float* importance) {
  const int size = type.sub_block_size();
  double error = 0;
  for (int i = 0; i < type.block_size; ++i) {
    const int j = i / size;
    const float level = type.shape->levels[block.codes[i]];
    const double difference = values[i] - (block.Step(j) * level - block.Offset(j));
    error += importance[i] * difference * difference;
  }
  return error;
}

// `importance` with ones where it is missing and in sub-blocks that have none above zero.
void CompleteImportance(const GgufTypeDef& type, absl::Span<const float> importance, float* out) {
  const int size = type.sub_block_size();
  for (int begin = 0; begin < type.block_size; begin += size) {
    float largest = 0;
    for (int i = begin; i < begin + size && !importance.empty(); ++i) {
      largest = std::max(largest, importance[static_cast<size_t>(i)]);
    }
    for (int i = begin; i < begin + size; ++i) {
      out[i] = largest > 0 ? importance[static_cast<size_t>(i)] : 1.0f;
    }
  }
}

}  // namespace

void BlockFitter::Fit(absl::Span<const float> values, absl::Span<const float> importance,
                      GgufBlock* block) const {
  FitByExtremes(type_, levels_, values.data(), block);
  if (fit_ == GgufFit::kReference) return;
  float complete[kMaxGgufBlock];
  CompleteImportance(type_, importance, complete);
  GgufBlock searched;
  FitBySearch(type_, levels_, values.data(), complete, &searched);
  if (WeightedError(type_, searched, values.data(), complete) <
      WeightedError(type_, *block, values.data(), complete)) {
    *block = searched;
  }
}

BlockGrid::BlockGrid(const GgufTypeDef& type, const GgufBlock& block)
    : shape_(*type.shape), levels_(shape_), sub_block_size_(type.sub_block_size()) {
  for (int j = 0; j < shape_.sub_blocks; ++j) {
    steps_[j] = block.Step(j);
    inverse_steps_[j] = InverseStep(steps_[j]);
    offsets_[j] = block.Offset(j);
  }
}

void BlockGrid::RoundCell(int first, const float* values, const float* weights,
                          uint8_t* codes) const {
  const float inverse = inverse_steps_[first / sub_block_size_];
  float v[Codebook::kMaxCell];
  for (int i = 0; i < cell_size(); ++i) v[i] = values[i] * inverse;
  levels_.codebook()->Round(v, weights, codes);
}

void QuantizeRow(const GgufTypeDef& type, GgufFit fit, absl::Span<const float> values,
                 absl::Span<const float> importance, uint8_t* bytes) {
  if (type.shape == nullptr) {
    for (const float value : values) {
      type.store(value, bytes);
      bytes += type.block_bytes;
    }
    return;
  }
  const BlockFitter fitter(type, fit);
  const size_t size = static_cast<size_t>(type.block_size);
  GgufBlock block;
  for (size_t begin = 0; begin < values.size(); begin += size, bytes += type.block_bytes) {
    const absl::Span<const float> weights =
        importance.empty() ? importance : importance.subspan(begin, size);
    fitter.Fit(values.subspan(begin, size), weights, &block);
    type.shape->pack(block, bytes);
  }
}

}  // namespace lwq

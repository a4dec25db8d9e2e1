// Weights, inputs, batches and rotations as the CUDA device keeps them.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "worker/engine/device/cuda/attention_kernels.h"
#include "worker/engine/device/cuda/blas.h"
#include "worker/engine/device/device.h"

namespace lwq::cuda {

// [rows, cols] of F32 or BF16 in device memory. Rows begin at multiples of 16 bytes, as tensor
// cores like it.
class TypedMatrix {
 public:
  static constexpr int64_t kRowBytes = 16;
  static int64_t ElementBytes(ComputeType type) { return type == ComputeType::kBF16 ? 2 : 4; }
  static int64_t Stride(int64_t cols, ComputeType type) {
    const int64_t step = kRowBytes / ElementBytes(type);
    return (cols + step - 1) / step * step;
  }

  TypedMatrix(std::unique_ptr<DeviceMemory> memory, int64_t rows, int64_t cols, ComputeType type)
      : memory_(std::move(memory)), rows_(rows), cols_(cols), type_(type) {}

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  ComputeType type() const { return type_; }
  int64_t size_bytes() const { return rows_ * Stride(cols_, type_) * ElementBytes(type_); }
  // The one that the type says.
  View<float> f32() const { return As<float>(); }
  View<uint16_t> bf16() const { return As<uint16_t>(); }
  Operand operand() const {
    if (type_ == ComputeType::kBF16) return View<const uint16_t>(bf16());
    return View<const float>(f32());
  }

 private:
  template <typename T>
  View<T> As() const {
    return {reinterpret_cast<T*>(memory_->data().address()), rows_, cols_, Stride(cols_, type_)};
  }

  std::unique_ptr<DeviceMemory> memory_;
  int64_t rows_, cols_;
  ComputeType type_;
};

class CudaWeight : public PreparedWeight {
 public:
  explicit CudaWeight(TypedMatrix matrix) : matrix_(std::move(matrix)) {}
  int64_t out_features() const override { return matrix_.rows(); }
  int64_t in_features() const override { return matrix_.cols(); }
  int64_t size_bytes() const override { return matrix_.size_bytes(); }
  const TypedMatrix& matrix() const { return matrix_; }

 private:
  const TypedMatrix matrix_;
};

class CudaInput : public PreparedInput {
 public:
  explicit CudaInput(TypedMatrix matrix) : matrix_(std::move(matrix)) {}
  int64_t rows() const override { return matrix_.rows(); }
  int64_t features() const override { return matrix_.cols(); }
  const TypedMatrix& matrix() const { return matrix_; }

 private:
  const TypedMatrix matrix_;
};

class CudaBatch : public DeviceBatch {
 public:
  CudaBatch(std::unique_ptr<DeviceBuffer<int32_t>> positions,
            std::unique_ptr<DeviceBuffer<QueryTile>> tiles,
            std::unique_ptr<DeviceBuffer<KeyRange>> ranges, std::vector<Segment> segments,
            int32_t last_position)
      : positions_(std::move(positions)),
        tiles_(std::move(tiles)),
        ranges_(std::move(ranges)),
        segments_(std::move(segments)),
        last_position_(last_position) {}
  int64_t rows() const override { return positions_->span().size; }
  DeviceSpan<const int32_t> positions() const { return positions_->span(); }
  DeviceSpan<const QueryTile> tiles() const { return tiles_->span(); }
  DeviceSpan<const KeyRange> ranges() const { return ranges_->span(); }
  const std::vector<Segment>& segments() const { return segments_; }
  // The largest, -1 where there are no rows.
  int32_t last_position() const { return last_position_; }

 private:
  const std::unique_ptr<DeviceBuffer<int32_t>> positions_;
  const std::unique_ptr<DeviceBuffer<QueryTile>> tiles_;
  const std::unique_ptr<DeviceBuffer<KeyRange>> ranges_;
  const std::vector<Segment> segments_;
  const int32_t last_position_;
};

// Cosine and sine of position p's pair i at [p, i].
class CudaRopeTable : public RopeTable {
 public:
  CudaRopeTable(std::unique_ptr<DeviceMatrix> cosine, std::unique_ptr<DeviceMatrix> sine,
                int head_dim, int64_t num_positions)
      : cosine_(std::move(cosine)),
        sine_(std::move(sine)),
        head_dim_(head_dim),
        num_positions_(num_positions) {}
  int head_dim() const override { return head_dim_; }
  int64_t num_positions() const override { return num_positions_; }
  DeviceView<const float> cosine() const { return std::as_const(*cosine_).view(); }
  DeviceView<const float> sine() const { return std::as_const(*sine_).view(); }

 private:
  const std::unique_ptr<DeviceMatrix> cosine_, sine_;
  const int head_dim_;
  const int64_t num_positions_;
};

// INVALID_ARGUMENT for one that another device made; `what` names it.
template <typename Own, typename Base>
absl::StatusOr<const Own*> OwnOf(const Base& base, absl::string_view what) {
  const auto* own = dynamic_cast<const Own*>(&base);
  if (own == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("the ", what, " was made by another device"));
  }
  return own;
}

}  // namespace lwq::cuda

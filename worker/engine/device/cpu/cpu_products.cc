// Matrix products: cut into tiles by the shapes alone, each tile one oneDNN call on one thread.
#include "worker/engine/device/cpu/cpu_products.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/cpu/cpu_kernels.h"
#include "worker/engine/device/cpu/run_all.h"
#include "worker/engine/tensor/half.h"

namespace lwq {
namespace {

// oneDNN's AVX2 product packs its operands, which is up to twice as fast, only where 1 / rows + 1 /
// columns is below .0038: 1024 x 512 is, and so are two sides of 544.
constexpr int64_t kMinTokenTile = 256;  // rows of x in one call: kMaxPanelRows, fewer for threads
constexpr int64_t kTilesWanted = 8;
constexpr int64_t kPanel = 512;  // outputs in one call; a weight is packed panel by panel
// With native BF16 a panel of 512 fills the second-level cache and leaves no room for x.
constexpr int64_t kBF16Panel = 128;
constexpr size_t kAlignment = 64;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t TokenTile(int64_t rows, int64_t panels) {
  int64_t tile = kMaxPanelRows;
  while (tile > kMinTokenTile && CeilDiv(rows, tile) * panels < kTilesWanted) tile /= 2;
  return tile;
}

// Room for one tile of a product's result, dense, for the thread that runs it. oneDNN has a fast
// kernel for a packed weight only where rows of the result follow each other.
float* DenseTile() {
  static thread_local Matrix tile(kMaxPanelRows, kPanel);
  return tile.data();
}

void WidenRounded(const float* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = BF16ToFloat(FloatToBF16(from[i]));
}

void StoreRow(const float* from, int64_t count, GemmShape::Update update, float* to) {
  switch (update) {
    case GemmShape::Update::kAssign:
      std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
      return;
    case GemmShape::Update::kAdd:
      AddRow(from, count, to);
      return;
    case GemmShape::Update::kSubtract:
      SubtractRow(from, count, to);
      return;
  }
}

// oneDNN's packed kernels want dense rows on the left too.
absl::StatusOr<Operand> DenseInput(ThreadPool& pool, ConstMatrixView x, Matrix& copy) {
  if (x.stride == x.cols) return Operand{x.data, x.stride, false};
  if (copy.size() < x.rows * x.cols) copy = Matrix(x.rows, x.cols);
  if (copy.data() == nullptr) return absl::ResourceExhaustedError("no memory for a dense copy");
  pool.ParallelFor(x.rows,
                   [&](int64_t r) { std::copy_n(x.Row(r), x.cols, copy.data() + r * x.cols); });
  return Operand{copy.data(), x.cols, false};
}

class CpuWeight : public PreparedWeight {
 public:
  CpuWeight(int64_t out_features, int64_t in_features, ComputeType type)
      : out_features_(out_features), in_features_(in_features), type_(type) {}
  int64_t out_features() const override { return out_features_; }
  int64_t in_features() const override { return in_features_; }
  int64_t size_bytes() const override { return static_cast<int64_t>(packed.size_bytes()); }
  ComputeType type() const { return type_; }

  PackedMatrix packed;

 private:
  int64_t out_features_, in_features_;
  ComputeType type_;
};

// y (+)= x [rows of it] times outputs [first, first + y.cols) of the weight.
absl::Status MultiplyWeight(ThreadPool& pool, CpuProducts& products, ConstMatrixView x,
                            const PreparedWeight& weight, int64_t first, MatrixView y,
                            GemmShape::Update update) {
  const auto* w = dynamic_cast<const CpuWeight*>(&weight);
  if (w == nullptr) return absl::InvalidArgumentError("weight was prepared by another device");
  LWQ_RETURN_IF_ERROR(CheckShape("linear input", x, y.rows, w->in_features()));
  LWQ_RETURN_IF_ERROR(CheckRange("linear output", first, y.cols, w->out_features()));
  if (x.rows == 0 || y.cols == 0) return absl::OkStatus();
  LWQ_ASSIGN_OR_RETURN(Operand source, RoundedInput(pool, x, w->type(), products));
  if (w->type() == ComputeType::kF32) {
    LWQ_ASSIGN_OR_RETURN(source, DenseInput(pool, x, products.widened));
  }
  std::vector<const PackedMatrix::Panel*> panels;
  for (const PackedMatrix::Panel& panel : w->packed.panels()) {
    if (panel.begin + panel.size > first && panel.begin < first + y.cols) panels.push_back(&panel);
  }
  const int64_t count = static_cast<int64_t>(panels.size());
  const int64_t tile = TokenTile(x.rows, count);
  return RunAll(pool, CeilDiv(x.rows, tile) * count, [&](int64_t i) -> absl::Status {
    const PackedMatrix::Panel& panel = *panels[static_cast<size_t>(i % count)];
    const int64_t row = i / count * tile;
    const int64_t skip = std::max<int64_t>(0, first - panel.begin);
    const int64_t at = panel.begin + skip - first;
    return Multiply(products.gemm,
                    {.a = source.At(row, 0),
                     .rows = std::min(tile, x.rows - row),
                     .k = x.cols,
                     .a_stride = source.stride,
                     .bf16 = source.bf16,
                     .b = &w->packed,
                     .panel = &panel,
                     .skip = skip,
                     .take = std::min(panel.size - skip, y.cols - at),
                     .c = y.Row(row) + at,
                     .c_stride = y.stride},
                    update);
  });
}

}  // namespace

absl::Status PackedMatrix::Resize(OnednnGemm& gemm, int64_t outputs, int64_t k, bool bf16) {
  panels_.clear();
  bytes_ = 0;
  const int64_t most = bf16 ? kBF16Panel : kPanel;
  for (int64_t begin = 0; begin < outputs; begin += most) {
    const int64_t size = std::min(most, outputs - begin);
    LWQ_ASSIGN_OR_RETURN(const size_t bytes, gemm.PackedBytes(size, k, bf16));
    panels_.push_back({begin, size, bytes_});
    bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  if (bytes_ <= capacity_) return absl::OkStatus();
  data_.reset();
  data_.reset(static_cast<uint8_t*>(AllocateHost(bytes_)));
  capacity_ = data_ == nullptr ? 0 : bytes_;
  if (data_ != nullptr) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("no memory for a packed matrix of ", outputs, " x ", k));
}

absl::Status Multiply(OnednnGemm& gemm, const PanelProduct& p, GemmShape::Update update) {
  const GemmShape shape{.m = p.rows,
                        .n = p.panel->size,
                        .k = p.k,
                        .a_row_stride = p.a_stride,
                        .c_stride = p.panel->size,
                        .bf16 = p.bf16,
                        .packed_b = true};
  LWQ_ASSIGN_OR_RETURN(const OnednnGemm::Kernel* kernel, gemm.Find(shape));
  const bool direct = update == GemmShape::Update::kAssign && p.c_stride == p.panel->size &&
                      p.take == p.panel->size;
  float* result = direct ? p.c : DenseTile();
  if (result == nullptr) return absl::ResourceExhaustedError("no memory for a product's tile");
  LWQ_RETURN_IF_ERROR(OnednnGemm::Run(*kernel, p.a, p.b->Data(*p.panel), result));
  for (int64_t r = 0; r < p.rows && !direct; ++r) {
    StoreRow(result + r * p.panel->size + p.skip, p.take, update, p.c + r * p.c_stride);
  }
  return absl::OkStatus();
}

absl::StatusOr<Operand> RoundedInput(ThreadPool& pool, ConstMatrixView x, ComputeType type,
                                     CpuProducts& products) {
  if (type == ComputeType::kF32) return Operand{x.data, x.stride, false};
  if (OnednnGemm::HasNativeBF16()) {
    std::vector<uint16_t>& rounded = products.rounded;
    rounded.resize(std::max(rounded.size(), static_cast<size_t>(x.rows * x.cols)));
    pool.ParallelFor(
        x.rows, [&](int64_t r) { RoundToBF16Row(x.Row(r), x.cols, rounded.data() + r * x.cols); });
    return Operand{rounded.data(), x.cols, true};
  }
  Matrix& widened = products.widened;
  if (widened.size() < x.rows * x.cols) widened = Matrix(x.rows, x.cols);
  if (widened.data() == nullptr) return absl::ResourceExhaustedError("no memory for rounding");
  pool.ParallelFor(x.rows,
                   [&](int64_t r) { WidenRounded(x.Row(r), x.cols, widened.data() + r * x.cols); });
  return Operand{widened.data(), x.cols, false};
}

absl::StatusOr<std::unique_ptr<PreparedWeight>> CpuDevice::PrepareWeight(ConstMatrixView weight,
                                                                         ComputeType type) {
  const bool native = type == ComputeType::kBF16 && OnednnGemm::HasNativeBF16();
  auto prepared = std::make_unique<CpuWeight>(weight.rows, weight.cols, type);
  PackedMatrix& packed = prepared->packed;
  LWQ_RETURN_IF_ERROR(packed.Resize(products_->gemm, weight.rows, weight.cols, native));
  const auto& panels = packed.panels();
  LWQ_RETURN_IF_ERROR(RunAll(pool_, static_cast<int64_t>(panels.size()), [&](int64_t i) {
    const PackedMatrix::Panel& panel = panels[static_cast<size_t>(i)];
    ConstMatrixView rows = weight.Rows(panel.begin, panel.size);
    Matrix rounded;
    if (type == ComputeType::kBF16 && !native) {
      rounded = Matrix(rows.rows, rows.cols);
      if (rounded.data() == nullptr) return absl::ResourceExhaustedError("no memory for rounding");
      for (int64_t r = 0; r < rows.rows; ++r) WidenRounded(rows.Row(r), rows.cols, rounded.Row(r));
      rows = rounded.view();
    }
    return products_->gemm.Pack(
        {.data = rows.data, .bf16 = false, .n_stride = rows.stride, .k_stride = 1}, rows.rows,
        rows.cols, native, packed.Data(panel));
  }));
  return prepared;
}

absl::Status CpuDevice::Linear(ConstMatrixView x, const PreparedWeight& weight, MatrixView y) {
  LWQ_RETURN_IF_ERROR(CheckShape("linear output", y, x.rows, weight.out_features()));
  return MultiplyWeight(pool_, *products_, x, weight, 0, y, GemmShape::Update::kAssign);
}

absl::Status CpuDevice::SubtractLinear(ConstMatrixView x, const PreparedWeight& weight,
                                       int64_t first_output, MatrixView y) {
  return MultiplyWeight(pool_, *products_, x, weight, first_output, y,
                        GemmShape::Update::kSubtract);
}

absl::Status CpuDevice::SubtractProduct(ConstMatrixView a, ConstMatrixView b, MatrixView c) {
  LWQ_RETURN_IF_ERROR(CheckShape("product's left side", a, c.rows, b.rows));
  LWQ_RETURN_IF_ERROR(CheckShape("product's right side", b, a.cols, c.cols));
  if (c.rows == 0 || c.cols == 0 || a.cols == 0) return absl::OkStatus();
  const int64_t panels = CeilDiv(c.cols, kPanel);
  const int64_t tile = TokenTile(c.rows, panels);
  return RunAll(pool_, CeilDiv(c.rows, tile) * panels, [&](int64_t i) -> absl::Status {
    const int64_t row = i / panels * tile;
    const int64_t col = i % panels * kPanel;
    const GemmShape shape{.m = std::min(tile, c.rows - row),
                          .n = std::min(kPanel, c.cols - col),
                          .k = a.cols,
                          .a_row_stride = a.stride,
                          .b_row_stride = b.stride,
                          .c_stride = c.stride,
                          .update = GemmShape::Update::kSubtract};
    LWQ_ASSIGN_OR_RETURN(const OnednnGemm::Kernel* kernel, products_->gemm.Find(shape));
    return OnednnGemm::Run(*kernel, a.Row(row), b.data + col, c.Row(row) + col);
  });
}

}  // namespace lwq

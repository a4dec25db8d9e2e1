// Matrix products: cut into tiles by the shapes alone, each tile one oneDNN call on one thread.
#include "worker/engine/device/cpu/cpu_products.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

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
constexpr int64_t kMaxTokenTile = 1024;  // rows of x in one call, halved to keep many threads busy
constexpr int64_t kMinTokenTile = 256;
constexpr int64_t kTilesWanted = 8;
constexpr int64_t kPanel = 512;  // outputs in one call; a weight is packed panel by panel
// With native BF16 a panel of 512 fills the second-level cache and leaves no room for x.
constexpr int64_t kBF16Panel = 128;
constexpr int64_t kMinGramTile = 544;    // columns of x on each side of one call
constexpr int64_t kSmallGramTile = 512;  // where there is no room for two of those
constexpr int64_t kGramTileStep = 16;    // whole vectors
constexpr int64_t kGramTokens = 512;     // tokens summed by one call
constexpr size_t kAlignment = 64;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t TokenTile(int64_t rows, int64_t panels) {
  int64_t tile = kMaxTokenTile;
  while (tile > kMinTokenTile && CeilDiv(rows, tile) * panels < kTilesWanted) tile /= 2;
  return tile;
}

// Tiles of about one size, so that none is too small to be fast.
int64_t GramTile(int64_t columns) {
  if (columns < 2 * kMinGramTile) return kSmallGramTile;
  const int64_t even = CeilDiv(columns, columns / kMinGramTile);
  return CeilDiv(even, kGramTileStep) * kGramTileStep;
}

struct Panel {
  int64_t begin;  // first output
  int64_t size;   // outputs
  size_t offset;  // bytes into the packed weight
};

class CpuWeight : public PreparedWeight {
 public:
  CpuWeight(int64_t out_features, int64_t in_features, ComputeType type)
      : out_features_(out_features), in_features_(in_features), type_(type) {}
  int64_t out_features() const override { return out_features_; }
  int64_t in_features() const override { return in_features_; }
  int64_t size_bytes() const override { return static_cast<int64_t>(bytes_); }

  ComputeType type() const { return type_; }
  const std::vector<Panel>& panels() const { return panels_; }
  uint8_t* PanelData(const Panel& panel) const { return data_.get() + panel.offset; }

  // Lays out the panels and takes memory for them.
  absl::Status Allocate(OnednnGemm& gemm, bool native_bf16) {
    const int64_t panel = native_bf16 ? kBF16Panel : kPanel;
    for (int64_t begin = 0; begin < out_features_; begin += panel) {
      const int64_t size = std::min(panel, out_features_ - begin);
      LWQ_ASSIGN_OR_RETURN(const size_t bytes, gemm.PackedBytes(size, in_features_, native_bf16));
      panels_.push_back({begin, size, bytes_});
      bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    }
    data_.reset(static_cast<uint8_t*>(AllocateHost(bytes_)));
    if (data_ != nullptr) return absl::OkStatus();
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for a weight of ", out_features_, " x ", in_features_));
  }

 private:
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  int64_t out_features_, in_features_;
  ComputeType type_;
  size_t bytes_ = 0;
  std::vector<Panel> panels_;
  std::unique_ptr<uint8_t[], Free> data_;
};

// Room for one tile of a product's result, dense, for the thread that runs it. oneDNN has a fast
// kernel for a packed weight only where rows of the result follow each other.
float* DenseTile() {
  static thread_local Matrix tile(kMaxTokenTile, kPanel);
  return tile.data();
}

// A product's left side: x itself, or a copy of x rounded to BF16.
struct Source {
  const void* data;
  int64_t stride;
  bool bf16;  // of 2-byte elements

  const void* At(int64_t row, int64_t col) const {
    return static_cast<const uint8_t*>(data) +
           static_cast<size_t>(row * stride + col) * (bf16 ? 2 : 4);
  }
};

void WidenRounded(const float* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = BF16ToFloat(FloatToBF16(from[i]));
}

// oneDNN's packed kernels want dense rows on the left too.
absl::StatusOr<Source> CopyInput(ThreadPool& pool, ConstMatrixView x, Matrix& copy) {
  if (copy.size() < x.rows * x.cols) copy = Matrix(x.rows, x.cols);
  if (copy.data() == nullptr) return absl::ResourceExhaustedError("no memory for a dense copy");
  pool.ParallelFor(x.rows,
                   [&](int64_t r) { std::copy_n(x.Row(r), x.cols, copy.data() + r * x.cols); });
  return Source{copy.data(), x.cols, false};
}

// Rounds x into the buffers that `rounded` and `widened` keep between calls.
absl::StatusOr<Source> RoundInput(ThreadPool& pool, ConstMatrixView x, bool native,
                                  std::vector<uint16_t>& rounded, Matrix& widened) {
  if (native) {
    rounded.resize(std::max(rounded.size(), static_cast<size_t>(x.rows * x.cols)));
    pool.ParallelFor(
        x.rows, [&](int64_t r) { RoundToBF16Row(x.Row(r), x.cols, rounded.data() + r * x.cols); });
    return Source{rounded.data(), x.cols, true};
  }
  if (widened.size() < x.rows * x.cols) widened = Matrix(x.rows, x.cols);
  if (widened.data() == nullptr) return absl::ResourceExhaustedError("no memory for rounding");
  pool.ParallelFor(x.rows,
                   [&](int64_t r) { WidenRounded(x.Row(r), x.cols, widened.data() + r * x.cols); });
  return Source{widened.data(), x.cols, false};
}

}  // namespace

absl::StatusOr<std::unique_ptr<PreparedWeight>> CpuDevice::PrepareWeight(ConstMatrixView weight,
                                                                         ComputeType type) {
  const bool native = type == ComputeType::kBF16 && OnednnGemm::HasNativeBF16();
  auto prepared = std::make_unique<CpuWeight>(weight.rows, weight.cols, type);
  LWQ_RETURN_IF_ERROR(prepared->Allocate(products_->gemm, native));
  const auto& panels = prepared->panels();
  LWQ_RETURN_IF_ERROR(RunAll(pool_, static_cast<int64_t>(panels.size()), [&](int64_t i) {
    const Panel& panel = panels[static_cast<size_t>(i)];
    ConstMatrixView rows = weight.Rows(panel.begin, panel.size);
    Matrix rounded;
    if (type == ComputeType::kBF16 && !native) {
      rounded = Matrix(rows.rows, rows.cols);
      if (rounded.data() == nullptr) return absl::ResourceExhaustedError("no memory for rounding");
      for (int64_t r = 0; r < rows.rows; ++r) WidenRounded(rows.Row(r), rows.cols, rounded.Row(r));
      rows = rounded.view();
    }
    return products_->gemm.Pack(rows.data, rows.stride, rows.rows, rows.cols, native,
                                prepared->PanelData(panel));
  }));
  return prepared;
}

absl::Status CpuDevice::Linear(ConstMatrixView x, const PreparedWeight& weight, MatrixView y) {
  const auto* w = dynamic_cast<const CpuWeight*>(&weight);
  if (w == nullptr) return absl::InvalidArgumentError("weight was prepared by another device");
  LWQ_RETURN_IF_ERROR(CheckShape("linear input", x, x.rows, w->in_features()));
  LWQ_RETURN_IF_ERROR(CheckShape("linear output", y, x.rows, w->out_features()));
  if (x.rows == 0) return absl::OkStatus();
  Source source{x.data, x.stride, false};
  if (w->type() == ComputeType::kBF16) {
    LWQ_ASSIGN_OR_RETURN(source, RoundInput(pool_, x, OnednnGemm::HasNativeBF16(),
                                            products_->rounded, products_->widened));
  } else if (x.stride != x.cols) {
    LWQ_ASSIGN_OR_RETURN(source, CopyInput(pool_, x, products_->widened));
  }
  const int64_t panels = static_cast<int64_t>(w->panels().size());
  const int64_t tile = TokenTile(x.rows, panels);
  return RunAll(pool_, CeilDiv(x.rows, tile) * panels, [&](int64_t i) -> absl::Status {
    const Panel& panel = w->panels()[static_cast<size_t>(i % panels)];
    const int64_t row = i / panels * tile;
    const GemmShape shape{.m = std::min(tile, x.rows - row),
                          .n = panel.size,
                          .k = x.cols,
                          .a_row_stride = source.stride,
                          .c_stride = panel.size,
                          .bf16 = source.bf16,
                          .packed_b = true};
    LWQ_ASSIGN_OR_RETURN(const OnednnGemm::Kernel* kernel, products_->gemm.Find(shape));
    const bool direct = y.stride == panel.size;
    float* result = direct ? y.Row(row) : DenseTile();
    if (result == nullptr) return absl::ResourceExhaustedError("no memory for a product's tile");
    LWQ_RETURN_IF_ERROR(OnednnGemm::Run(*kernel, source.At(row, 0), w->PanelData(panel), result));
    for (int64_t r = 0; r < shape.m && !direct; ++r) {
      std::memcpy(y.Row(row + r) + panel.begin, result + r * panel.size,
                  static_cast<size_t>(panel.size) * sizeof(float));
    }
    return absl::OkStatus();
  });
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

absl::Status CpuDevice::AccumulateGram(ConstMatrixView x, ComputeType type, MatrixView gram) {
  LWQ_RETURN_IF_ERROR(CheckShape("second moments", gram, x.cols, x.cols));
  if (x.rows == 0) return absl::OkStatus();
  Source source{x.data, x.stride, false};
  if (type == ComputeType::kBF16) {
    LWQ_ASSIGN_OR_RETURN(source, RoundInput(pool_, x, OnednnGemm::HasNativeBF16(),
                                            products_->rounded, products_->widened));
  }
  std::vector<std::pair<int64_t, int64_t>> tiles;  // first row and column, column <= row
  const int64_t tile = GramTile(x.cols);
  for (int64_t i = 0; i < x.cols; i += tile) {
    for (int64_t j = 0; j <= i; j += tile) tiles.push_back({i, j});
  }
  return RunAll(pool_, static_cast<int64_t>(tiles.size()), [&](int64_t t) -> absl::Status {
    const auto [i, j] = tiles[static_cast<size_t>(t)];
    for (int64_t token = 0; token < x.rows; token += kGramTokens) {
      const GemmShape shape{.m = std::min(tile, x.cols - i),
                            .n = std::min(tile, x.cols - j),
                            .k = std::min(kGramTokens, x.rows - token),
                            .a_row_stride = 1,
                            .a_col_stride = source.stride,
                            .b_row_stride = source.stride,
                            .c_stride = gram.stride,
                            .bf16 = source.bf16,
                            .update = GemmShape::Update::kAdd};
      LWQ_ASSIGN_OR_RETURN(const OnednnGemm::Kernel* kernel, products_->gemm.Find(shape));
      LWQ_RETURN_IF_ERROR(
          OnednnGemm::Run(*kernel, source.At(token, i), source.At(token, j), gram.Row(i) + j));
    }
    return absl::OkStatus();
  });
}

}  // namespace lwq

// Matrix products: cut into tiles by the shapes alone, each tile one oneDNN call on one thread.
#include "worker/engine/device/cpu/cpu_products.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/cpu/cpu_kernels.h"
#include "worker/engine/device/cpu/run_all.h"
#include "worker/engine/tensor/half.h"

namespace lwq {
namespace {

constexpr int64_t kMinTokenTile = 256;  // rows of x in one call: kMaxTileRows, fewer for threads
constexpr int64_t kBF16TokenTile = 512;
constexpr int64_t kTilesWanted = 8;
constexpr int64_t kColumns = 512;    // of one call where the right side is not packed
constexpr int64_t kRowsAtOnce = 16;  // of work that is not a product

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t TokenTile(int64_t rows, int64_t panels, bool bf16) {
  int64_t tile = bf16 ? kBF16TokenTile : kMaxTileRows;
  while (tile > kMinTokenTile && CeilDiv(rows, tile) * panels < kTilesWanted) tile /= 2;
  return tile;
}

void WidenRounded(const float* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = BF16ToFloat(FloatToBF16(from[i]));
}

// to [x.rows, x.cols], dense = x rounded to BF16.
absl::Status Widen(ThreadPool& pool, ConstMatrixView x, Matrix& to) {
  if (to.size() < x.rows * x.cols) to = Matrix(x.rows, x.cols);
  if (to.data() == nullptr) return absl::ResourceExhaustedError("no memory for rounding");
  pool.ParallelForBlocks(x.rows, kRowsAtOnce, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      WidenRounded(x.Row(r), x.cols, to.data() + r * x.cols);
    }
  });
  return absl::OkStatus();
}

// oneDNN's packed kernels want dense rows on the left too.
absl::StatusOr<Operand> DenseInput(ThreadPool& pool, ConstMatrixView x, Matrix& copy) {
  if (x.stride == x.cols) return Operand{x.data, x.rows, x.stride, false};
  if (copy.size() < x.rows * x.cols) copy = Matrix(x.rows, x.cols);
  if (copy.data() == nullptr) return absl::ResourceExhaustedError("no memory for a dense copy");
  pool.ParallelFor(x.rows,
                   [&](int64_t r) { std::copy_n(x.Row(r), x.cols, copy.data() + r * x.cols); });
  return Operand{copy.data(), x.rows, x.cols, false};
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

absl::StatusOr<const CpuWeight*> OwnWeight(const PreparedWeight& weight, ConstMatrixView x) {
  const auto* w = dynamic_cast<const CpuWeight*>(&weight);
  if (w == nullptr) return absl::InvalidArgumentError("weight was prepared by another device");
  LWQ_RETURN_IF_ERROR(CheckShape("linear input", x, x.rows, w->in_features()));
  return w;
}

// A product of x with the panels of a packed matrix that outputs [first, first + count) lie in.
class PackedProduct {
 public:
  // One tile: its rows of x, and its outputs.
  struct Tile {
    const PackedMatrix::Panel* panel;
    int64_t row, rows;
    int64_t skip;   // outputs of the panel before the first that is wanted
    int64_t at;     // that one's place among those wanted
    int64_t count;  // wanted outputs of the panel
  };

  PackedProduct(ThreadPool* pool, CpuProducts* products, ConstMatrixView x, ComputeType type,
                const PackedMatrix* packed)
      : pool_(*pool), products_(*products), x_(x), type_(type), packed_(*packed) {}

  // Calls store(tile) for each tile, on the pool's threads.
  absl::Status Run(int64_t first, int64_t count,
                   const std::function<absl::Status(const Tile&)>& store) {
    if (x_.rows == 0 || count == 0) return absl::OkStatus();
    if (type_ == ComputeType::kF32) {
      LWQ_ASSIGN_OR_RETURN(source_, DenseInput(pool_, x_, products_.widened));
    } else {
      LWQ_ASSIGN_OR_RETURN(source_, RoundedInput(pool_, x_, type_, packed_.slabs(), products_));
    }
    std::vector<Tile> tiles;
    for (const PackedMatrix::Panel& panel : packed_.panels()) {
      if (panel.begin + panel.size <= first || panel.begin >= first + count) continue;
      const int64_t skip = std::max<int64_t>(0, first - panel.begin);
      const int64_t at = panel.begin + skip - first;
      tiles.push_back({&panel, 0, 0, skip, at, std::min(panel.size - skip, count - at)});
    }
    const int64_t panels = static_cast<int64_t>(tiles.size());
    const int64_t rows = TokenTile(x_.rows, panels, packed_.bf16());
    return RunAll(pool_, CeilDiv(x_.rows, rows) * panels, [&](int64_t i) {
      Tile tile = tiles[static_cast<size_t>(i % panels)];
      tile.row = i / panels * rows;
      tile.rows = std::min(rows, x_.rows - tile.row);
      return store(tile);
    });
  }

  // The tile's product with `packed`, whose panels are as this matrix's.
  absl::Status Multiply(const Tile& tile, const PackedMatrix& packed, float* result) const {
    return lwq::Multiply(products_.gemm, source_, tile.row, tile.rows, packed, *tile.panel, result);
  }

 private:
  ThreadPool& pool_;
  CpuProducts& products_;
  const ConstMatrixView x_;
  const ComputeType type_;
  const PackedMatrix& packed_;
  Operand source_;
};

absl::Status SubtractTile(const PackedProduct& product, const PackedProduct::Tile& tile,
                          const PackedMatrix& packed, MatrixView y) {
  float* result = ThreadTile(0);
  LWQ_RETURN_IF_ERROR(product.Multiply(tile, packed, result));
  for (int64_t r = 0; r < tile.rows; ++r) {
    SubtractRow(result + tile.skip, tile.count, y.Row(tile.row + r) + tile.at);
    result += tile.panel->size;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Operand> RoundedInput(ThreadPool& pool, ConstMatrixView x, ComputeType type,
                                     absl::Span<const Slab> slabs, CpuProducts& products) {
  if (type == ComputeType::kF32) return Operand{x.data, x.rows, x.stride, false};
  const int64_t size = x.rows * x.cols;
  if (OnednnGemm::HasNativeBF16()) {
    auto* rounded = static_cast<uint16_t*>(
        products.rounded.Reserve(static_cast<size_t>(size) * sizeof(uint16_t)));
    if (rounded == nullptr) return absl::ResourceExhaustedError("no memory for rounding");
    pool.ParallelForBlocks(x.rows, kRowsAtOnce, [&](int64_t begin, int64_t end) {
      for (const Slab& slab : slabs) {
        uint16_t* to = rounded + x.rows * slab.begin;
        for (int64_t r = begin; r < end; ++r) {
          RoundToBF16Row(x.Row(r) + slab.begin, slab.size, to + r * slab.size);
        }
      }
    });
    return Operand{rounded, x.rows, 0, true};
  }
  LWQ_RETURN_IF_ERROR(Widen(pool, x, products.widened));
  return Operand{products.widened.data(), x.rows, x.cols, false};
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
    return packed.Pack(products_->gemm, panel,
                       {.data = rows.data, .bf16 = false, .n_stride = rows.stride, .k_stride = 1});
  }));
  return prepared;
}

absl::Status CpuDevice::Linear(ConstMatrixView x, BiasedWeight weight, MatrixView y) {
  LWQ_ASSIGN_OR_RETURN(const CpuWeight* w, OwnWeight(*weight.weight, x));
  LWQ_RETURN_IF_ERROR(CheckShape("linear output", y, x.rows, w->out_features()));
  PackedProduct product(&pool_, products_.get(), x, w->type(), &w->packed);
  return product.Run(0, y.cols, [&](const PackedProduct::Tile& tile) -> absl::Status {
    float* result = y.stride == tile.panel->size ? y.Row(tile.row) : ThreadTile(0);
    LWQ_RETURN_IF_ERROR(product.Multiply(tile, w->packed, result));
    for (int64_t r = 0; r < tile.rows; ++r) {
      float* to = y.Row(tile.row + r) + tile.at;
      if (to != result) std::copy_n(result, tile.count, to);
      if (weight.bias != nullptr) AddRow(weight.bias + tile.at, tile.count, to);
      result += tile.panel->size;
    }
    return absl::OkStatus();
  });
}

absl::Status CpuDevice::AddLinear(ConstMatrixView x, BiasedWeight weight, MatrixView y) {
  LWQ_ASSIGN_OR_RETURN(const CpuWeight* w, OwnWeight(*weight.weight, x));
  LWQ_RETURN_IF_ERROR(CheckShape("linear output", y, x.rows, w->out_features()));
  PackedProduct product(&pool_, products_.get(), x, w->type(), &w->packed);
  return product.Run(0, y.cols, [&](const PackedProduct::Tile& tile) -> absl::Status {
    float* result = ThreadTile(0);
    LWQ_RETURN_IF_ERROR(product.Multiply(tile, w->packed, result));
    for (int64_t r = 0; r < tile.rows; ++r) {
      if (weight.bias != nullptr) AddRow(weight.bias + tile.at, tile.count, result);
      AddRow(result, tile.count, y.Row(tile.row + r) + tile.at);
      result += tile.panel->size;
    }
    return absl::OkStatus();
  });
}

absl::Status CpuDevice::SubtractLinear(ConstMatrixView x, const PreparedWeight& weight,
                                       int64_t first_output, MatrixView y) {
  LWQ_ASSIGN_OR_RETURN(const CpuWeight* w, OwnWeight(weight, x));
  LWQ_RETURN_IF_ERROR(CheckShape("linear input", x, y.rows, x.cols));
  LWQ_RETURN_IF_ERROR(CheckRange("linear output", first_output, y.cols, w->out_features()));
  PackedProduct product(&pool_, products_.get(), x, w->type(), &w->packed);
  return product.Run(first_output, y.cols, [&](const PackedProduct::Tile& tile) {
    return SubtractTile(product, tile, w->packed, y);
  });
}

absl::Status CpuDevice::GatedLinear(ConstMatrixView x, BiasedWeight gate, BiasedWeight up,
                                    MatrixView y) {
  LWQ_ASSIGN_OR_RETURN(const CpuWeight* g, OwnWeight(*gate.weight, x));
  LWQ_ASSIGN_OR_RETURN(const CpuWeight* u, OwnWeight(*up.weight, x));
  LWQ_RETURN_IF_ERROR(CheckShape("linear output", y, x.rows, g->out_features()));
  if (u->out_features() != g->out_features() || u->type() != g->type()) {
    return absl::InvalidArgumentError("gate and up are not of one shape and type");
  }
  PackedProduct product(&pool_, products_.get(), x, g->type(), &g->packed);
  return product.Run(0, y.cols, [&](const PackedProduct::Tile& tile) -> absl::Status {
    float* gates = ThreadTile(0);
    float* ups = ThreadTile(1);
    LWQ_RETURN_IF_ERROR(product.Multiply(tile, g->packed, gates));
    LWQ_RETURN_IF_ERROR(product.Multiply(tile, u->packed, ups));
    for (int64_t r = 0; r < tile.rows; ++r) {
      if (gate.bias != nullptr) AddRow(gate.bias + tile.at, tile.count, gates);
      if (up.bias != nullptr) AddRow(up.bias + tile.at, tile.count, ups);
      SwiGluRow(gates, ups, tile.count, y.Row(tile.row + r) + tile.at);
      gates += tile.panel->size;
      ups += tile.panel->size;
    }
    return absl::OkStatus();
  });
}

absl::Status CpuDevice::SubtractProduct(ConstMatrixView a, ConstMatrixView b, ComputeType type,
                                        MatrixView c) {
  LWQ_RETURN_IF_ERROR(CheckShape("product's left side", a, c.rows, b.rows));
  LWQ_RETURN_IF_ERROR(CheckShape("product's right side", b, a.cols, c.cols));
  if (c.rows == 0 || c.cols == 0 || a.cols == 0) return absl::OkStatus();
  if (type == ComputeType::kBF16) {
    if (OnednnGemm::HasNativeBF16()) return SubtractPacked(a, b, c);
    LWQ_RETURN_IF_ERROR(Widen(pool_, a, products_->widened));
    LWQ_RETURN_IF_ERROR(Widen(pool_, b, products_->widened_right));
    a = {products_->widened.data(), a.rows, a.cols, a.cols};
    b = {products_->widened_right.data(), b.rows, b.cols, b.cols};
  }
  const int64_t panels = CeilDiv(c.cols, kColumns);
  const int64_t tile = TokenTile(c.rows, panels, false);
  return RunAll(pool_, CeilDiv(c.rows, tile) * panels, [&](int64_t i) -> absl::Status {
    const int64_t row = i / panels * tile;
    const int64_t col = i % panels * kColumns;
    const GemmShape shape{.m = std::min(tile, c.rows - row),
                          .n = std::min(kColumns, c.cols - col),
                          .k = a.cols,
                          .a_row_stride = a.stride,
                          .b_row_stride = b.stride,
                          .c_stride = c.stride,
                          .update = GemmShape::Update::kSubtract};
    LWQ_ASSIGN_OR_RETURN(const OnednnGemm::Kernel* kernel, products_->gemm.Find(shape));
    return OnednnGemm::Run(*kernel, a.Row(row), b.data + col, c.Row(row) + col);
  });
}

// By BF16 instructions: both sides rounded, the right one packed for this product alone.
absl::Status CpuDevice::SubtractPacked(ConstMatrixView a, ConstMatrixView b, MatrixView c) {
  PackedMatrix& packed = products_->packed;
  LWQ_RETURN_IF_ERROR(packed.Resize(products_->gemm, b.cols, b.rows, true));
  const auto& panels = packed.panels();
  LWQ_RETURN_IF_ERROR(RunAll(pool_, static_cast<int64_t>(panels.size()), [&](int64_t i) {
    const PackedMatrix::Panel& panel = panels[static_cast<size_t>(i)];
    return packed.Pack(products_->gemm, panel,
                       {.data = b.data + panel.begin, .n_stride = 1, .k_stride = b.stride});
  }));
  PackedProduct product(&pool_, products_.get(), a, ComputeType::kBF16, &packed);
  return product.Run(0, c.cols, [&](const PackedProduct::Tile& tile) {
    return SubtractTile(product, tile, packed, c);
  });
}

}  // namespace lwq

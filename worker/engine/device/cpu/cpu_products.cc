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
#include "worker/engine/device/cpu/product_input.h"
#include "worker/engine/device/cpu/run_all.h"

namespace lwq {
namespace {

constexpr int64_t kMinTokenTile = 256;  // rows of x in one call: kMaxTileRows, fewer for threads
constexpr int64_t kBF16TokenTile = 256;
constexpr int64_t kTilesWanted = 8;
constexpr int64_t kColumns = 512;  // of one call where the right side is not packed

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t TokenTile(int64_t rows, int64_t panels, bool bf16) {
  int64_t tile = bf16 ? kBF16TokenTile : kMaxTileRows;
  while (tile > kMinTokenTile && CeilDiv(rows, tile) * panels < kTilesWanted) tile /= 2;
  return tile;
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

// A product of a left side with the panels of a packed matrix.
class PackedProduct {
 public:
  // One tile: its rows of x, and its outputs.
  struct Tile {
    int64_t row, rows;
    absl::Span<const PackedMatrix::Panel> panels;
  };

  PackedProduct(ThreadPool* pool, CpuProducts* products, const Operand& x,
                const PackedMatrix* packed)
      : pool_(*pool), products_(*products), x_(x), packed_(*packed) {}

  // Calls store(tile) for each tile, on the pool's threads.
  absl::Status Run(const std::function<absl::Status(const Tile&)>& store) {
    const auto panels = absl::MakeConstSpan(packed_.panels());
    if (x_.rows == 0 || panels.empty()) return absl::OkStatus();
    const int64_t together = packed_.bf16() ? kBF16PanelsAtOnce : 1;
    const int64_t groups = CeilDiv(static_cast<int64_t>(panels.size()), together);
    const int64_t rows = TokenTile(x_.rows, groups, packed_.bf16());
    // Rows first: the weight is the larger side more often, and passes through the caches once.
    const int64_t row_tiles = CeilDiv(x_.rows, rows);
    return RunAll(pool_, row_tiles * groups, [&](int64_t i) {
      const int64_t row = i % row_tiles * rows;
      return store({row, std::min(rows, x_.rows - row),
                    panels.subspan(static_cast<size_t>(i / row_tiles * together),
                                   static_cast<size_t>(together))});
    });
  }

  // The tile's product with `packed`, whose panels are as this matrix's, panel after panel.
  absl::Status Multiply(const Tile& tile, const PackedMatrix& packed, float* result) const {
    return lwq::Multiply(products_.gemm, x_, tile.row, tile.rows, packed, tile.panels, result);
  }

 private:
  ThreadPool& pool_;
  CpuProducts& products_;
  const Operand x_;
  const PackedMatrix& packed_;
};

absl::StatusOr<Operand> InputOf(ThreadPool& pool, ConstMatrixView x, const CpuWeight& weight,
                                CpuProducts& products) {
  return DenseInput(pool, x, weight.type(), weight.packed.slabs(), products);
}

// Calls body(result, count, row, first output) for each row and panel of a tile's product.
template <typename Body>
void ForEachRow(const PackedProduct::Tile& tile, const float* result, const Body& body) {
  for (const PackedMatrix::Panel& panel : tile.panels) {
    for (int64_t r = 0; r < tile.rows; ++r, result += panel.size) {
      body(result, panel.size, tile.row + r, panel.begin);
    }
  }
}

// y = the product, plus bias where there is one.
absl::Status StoreLinear(PackedProduct product, const PackedMatrix& packed, const float* bias,
                         MatrixView y) {
  return product.Run([&](const PackedProduct::Tile& tile) -> absl::Status {
    float* result = ThreadTile(0);
    LWQ_RETURN_IF_ERROR(product.Multiply(tile, packed, result));
    ForEachRow(tile, result, [&](const float* sums, int64_t count, int64_t row, int64_t first) {
      float* to = y.Row(row) + first;
      std::copy_n(sums, count, to);
      if (bias != nullptr) AddRow(bias + first, count, to);
    });
    return absl::OkStatus();
  });
}

}  // namespace

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
      for (int64_t r = 0; r < rows.rows; ++r) {
        RoundThroughBF16(rows.Row(r), rows.cols, rounded.Row(r));
      }
      rows = rounded.view();
    }
    return packed.Pack(products_->gemm, panel,
                       {.data = rows.data, .bf16 = false, .n_stride = rows.stride, .k_stride = 1});
  }));
  return prepared;
}

absl::StatusOr<std::unique_ptr<PreparedWeight>> CpuDevice::PrepareTransposed(ConstMatrixView b,
                                                                             ComputeType type) {
  const bool native = type == ComputeType::kBF16 && OnednnGemm::HasNativeBF16();
  auto prepared = std::make_unique<CpuWeight>(b.cols, b.rows, type);
  PackedMatrix& packed = prepared->packed;
  LWQ_RETURN_IF_ERROR(packed.Resize(products_->gemm, b.cols, b.rows, native));
  Matrix rounded;
  if (type == ComputeType::kBF16 && !native) {
    rounded = Matrix(b.rows, b.cols);
    if (rounded.data() == nullptr) return absl::ResourceExhaustedError("no memory for rounding");
    pool_.ParallelFor(b.rows,
                      [&](int64_t r) { RoundThroughBF16(b.Row(r), b.cols, rounded.Row(r)); });
    b = rounded.view();
  }
  const auto& panels = packed.panels();
  LWQ_RETURN_IF_ERROR(RunAll(pool_, static_cast<int64_t>(panels.size()), [&](int64_t i) {
    const PackedMatrix::Panel& panel = panels[static_cast<size_t>(i)];
    return packed.Pack(
        products_->gemm, panel,
        {.data = b.data + panel.begin, .bf16 = false, .n_stride = 1, .k_stride = b.stride});
  }));
  return prepared;
}

absl::StatusOr<std::unique_ptr<PreparedInput>> CpuDevice::NewInput(int64_t rows, int64_t features,
                                                                   ComputeType type) {
  return CpuInput::Create(rows, features, type);
}

absl::Status CpuDevice::SetColumns(ConstMatrixView values, int64_t first, PreparedInput& input) {
  auto* own = dynamic_cast<CpuInput*>(&input);
  if (own == nullptr) return absl::InvalidArgumentError("input was prepared by another device");
  LWQ_RETURN_IF_ERROR(CheckShape("input's columns", values, own->rows(), values.cols));
  LWQ_RETURN_IF_ERROR(CheckRange("input's columns", first, values.cols, own->features()));
  own->SetColumns(pool_, values, first);
  return absl::OkStatus();
}

absl::Status CpuDevice::Linear(const PreparedInput& x, BiasedWeight weight, MatrixView y) {
  const auto* input = dynamic_cast<const CpuInput*>(&x);
  const auto* w = dynamic_cast<const CpuWeight*>(weight.weight);
  if (input == nullptr || w == nullptr) {
    return absl::InvalidArgumentError("input or weight was prepared by another device");
  }
  if (input->type() != w->type() || input->features() != w->in_features()) {
    return absl::InvalidArgumentError(
        absl::StrCat("an input of ", input->features(), " features in ", NameOf(input->type()),
                     " meets a weight of ", w->in_features(), " in ", NameOf(w->type())));
  }
  LWQ_RETURN_IF_ERROR(CheckShape("linear output", y, input->rows(), w->out_features()));
  return StoreLinear(PackedProduct(&pool_, products_.get(), input->operand(), &w->packed),
                     w->packed, weight.bias, y);
}

absl::Status CpuDevice::Linear(ConstMatrixView x, BiasedWeight weight, MatrixView y) {
  LWQ_ASSIGN_OR_RETURN(const CpuWeight* w, OwnWeight(*weight.weight, x));
  LWQ_RETURN_IF_ERROR(CheckShape("linear output", y, x.rows, w->out_features()));
  LWQ_ASSIGN_OR_RETURN(const Operand input, InputOf(pool_, x, *w, *products_));
  return StoreLinear(PackedProduct(&pool_, products_.get(), input, &w->packed), w->packed,
                     weight.bias, y);
}

absl::Status CpuDevice::AddLinear(ConstMatrixView x, BiasedWeight weight, MatrixView y) {
  LWQ_ASSIGN_OR_RETURN(const CpuWeight* w, OwnWeight(*weight.weight, x));
  LWQ_RETURN_IF_ERROR(CheckShape("linear output", y, x.rows, w->out_features()));
  LWQ_ASSIGN_OR_RETURN(const Operand input, InputOf(pool_, x, *w, *products_));
  PackedProduct product(&pool_, products_.get(), input, &w->packed);
  return product.Run([&](const PackedProduct::Tile& tile) -> absl::Status {
    float* result = ThreadTile(0);
    LWQ_RETURN_IF_ERROR(product.Multiply(tile, w->packed, result));
    ForEachRow(tile, result, [&](const float* sums, int64_t count, int64_t row, int64_t first) {
      float* to = y.Row(row) + first;
      AddRow(sums, count, to);
      if (weight.bias != nullptr) AddRow(weight.bias + first, count, to);
    });
    return absl::OkStatus();
  });
}

absl::Status CpuDevice::SubtractLinear(ConstMatrixView x, const PreparedWeight& weight,
                                       MatrixView y) {
  LWQ_ASSIGN_OR_RETURN(const CpuWeight* w, OwnWeight(weight, x));
  LWQ_RETURN_IF_ERROR(CheckShape("linear output", y, x.rows, w->out_features()));
  LWQ_ASSIGN_OR_RETURN(const Operand input, InputOf(pool_, x, *w, *products_));
  PackedProduct product(&pool_, products_.get(), input, &w->packed);
  return product.Run([&](const PackedProduct::Tile& tile) -> absl::Status {
    float* result = ThreadTile(0);
    LWQ_RETURN_IF_ERROR(product.Multiply(tile, w->packed, result));
    ForEachRow(tile, result, [&](const float* sums, int64_t count, int64_t row, int64_t first) {
      float* to = y.Row(row) + first;
      SubtractRow(to, sums, count, to);
    });
    return absl::OkStatus();
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
  LWQ_ASSIGN_OR_RETURN(const Operand input, InputOf(pool_, x, *g, *products_));
  PackedProduct product(&pool_, products_.get(), input, &g->packed);
  return product.Run([&](const PackedProduct::Tile& tile) -> absl::Status {
    float* gates = ThreadTile(0);
    float* ups = ThreadTile(1);
    LWQ_RETURN_IF_ERROR(product.Multiply(tile, g->packed, gates));
    LWQ_RETURN_IF_ERROR(product.Multiply(tile, u->packed, ups));
    ForEachRow(tile, gates, [&](const float* g_row, int64_t count, int64_t row, int64_t first) {
      float* g_sums = gates + (g_row - gates);
      float* u_sums = ups + (g_row - gates);
      if (gate.bias != nullptr) AddRow(gate.bias + first, count, g_sums);
      if (up.bias != nullptr) AddRow(up.bias + first, count, u_sums);
      SwiGluRow(g_sums, u_sums, count, y.Row(row) + first);
    });
    return absl::OkStatus();
  });
}

absl::Status CpuDevice::SubtractProduct(ConstMatrixView a, ConstMatrixView b, MatrixView c) {
  LWQ_RETURN_IF_ERROR(CheckShape("product's left side", a, c.rows, b.rows));
  LWQ_RETURN_IF_ERROR(CheckShape("product's right side", b, a.cols, c.cols));
  if (c.rows == 0 || c.cols == 0 || a.cols == 0) return absl::OkStatus();
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

}  // namespace lwq

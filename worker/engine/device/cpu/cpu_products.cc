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
#include "worker/engine/device/cpu/cpu_space.h"
#include "worker/engine/device/cpu/product_input.h"
#include "worker/engine/device/cpu/run_all.h"

namespace lwq {
namespace {

constexpr int64_t kMinTileRows = 256;  // of F32: kMaxTileRows, fewer for threads
constexpr int64_t kTilesWanted = 8;
constexpr int64_t kColumns = 512;  // of one call where the right side is not packed

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows of F32 in one call, with `groups` tiles beside each other.
int64_t TileRows(int64_t rows, int64_t groups) {
  int64_t tile = kMaxTileRows;
  while (tile > kMinTileRows && CeilDiv(rows, tile) * groups < kTilesWanted) tile /= 2;
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

// An input that NewInput made and a weight that it fits.
struct OwnOperands {
  Operand input;
  const CpuWeight* weight;
};

absl::StatusOr<OwnOperands> Own(const PreparedInput& x, const PreparedWeight& weight,
                                DeviceView<float> y) {
  const auto* input = dynamic_cast<const CpuInput*>(&x);
  const auto* w = dynamic_cast<const CpuWeight*>(&weight);
  if (input == nullptr || w == nullptr) {
    return absl::InvalidArgumentError("input or weight was prepared by another device");
  }
  if (input->type() != w->type() || input->features() != w->in_features()) {
    return absl::InvalidArgumentError(
        absl::StrCat("an input of ", input->features(), " features in ", NameOf(input->type()),
                     " meets a weight of ", w->in_features(), " in ", NameOf(w->type())));
  }
  LWQ_RETURN_IF_ERROR(CheckShape("linear output", y, input->rows(), w->out_features()));
  return OwnOperands{input->operand(), w};
}

absl::StatusOr<const CpuWeight*> OwnWeight(const PreparedWeight& weight,
                                           DeviceView<const float> x) {
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
    const int64_t rows = packed_.bf16() ? kBF16TileRows : TileRows(x_.rows, groups);
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

// The bias of a product with `weight`, null where there is none.
absl::StatusOr<const float*> BiasOf(const BiasedWeight& weight) {
  if (weight.bias.empty()) return nullptr;
  LWQ_RETURN_IF_ERROR(CheckLength("bias", weight.bias.size, weight.weight->out_features()));
  return Host(weight.bias.data);
}

absl::StatusOr<Operand> InputOf(ThreadPool& pool, DeviceView<const float> x,
                                const CpuWeight& weight, CpuProducts& products) {
  return DenseInput(pool, Host(x), weight.type(), weight.packed.slabs(), products);
}

// Calls body(offset, count, row, first output) for each row and panel of a tile's product, `count`
// sums from `offset` on.
template <typename Body>
void ForEachRow(const PackedProduct::Tile& tile, const Body& body) {
  int64_t offset = 0;
  for (const PackedMatrix::Panel& panel : tile.panels) {
    for (int64_t r = 0; r < tile.rows; ++r, offset += panel.size) {
      body(offset, panel.size, tile.row + r, panel.begin);
    }
  }
}

// Calls body(sums, count, row, first output) for all of x weight^T, piece by piece, on the pool's
// threads.
template <typename Body>
absl::Status ForEachSum(ThreadPool& pool, CpuProducts& products, const Operand& x,
                        const CpuWeight& weight, const Body& body) {
  PackedProduct product(&pool, &products, x, &weight.packed);
  return product.Run([&](const PackedProduct::Tile& tile) -> absl::Status {
    const float* sums = ThreadTile(0);
    LWQ_RETURN_IF_ERROR(product.Multiply(tile, weight.packed, ThreadTile(0)));
    ForEachRow(tile, [&](int64_t offset, int64_t count, int64_t row, int64_t first) {
      body(sums + offset, count, row, first);
    });
    return absl::OkStatus();
  });
}

// y = x weight^T, plus bias where there is one.
absl::Status StoreLinear(ThreadPool& pool, CpuProducts& products, const Operand& x,
                         const CpuWeight& weight, const float* bias, DeviceView<float> y) {
  return ForEachSum(pool, products, x, weight,
                    [&](const float* sums, int64_t count, int64_t row, int64_t first) {
                      float* to = Row(y, row) + first;
                      std::copy_n(sums, count, to);
                      if (bias != nullptr) AddRow(bias + first, count, to);
                    });
}

// y -= x weight^T.
absl::Status SubtractSums(ThreadPool& pool, CpuProducts& products, const Operand& x,
                          const CpuWeight& weight, DeviceView<float> y) {
  return ForEachSum(pool, products, x, weight,
                    [&](const float* sums, int64_t count, int64_t row, int64_t first) {
                      float* to = Row(y, row) + first;
                      SubtractRow(to, sums, count, to);
                    });
}

// A weight from `stored` [out, in], or [in, out] where it is transposed.
absl::StatusOr<std::unique_ptr<PreparedWeight>> Prepare(ThreadPool& pool, CpuProducts& products,
                                                        ConstMatrixView stored, bool transposed,
                                                        ComputeType type) {
  const bool native = type == ComputeType::kBF16 && OnednnGemm::HasNativeBF16();
  const int64_t outputs = transposed ? stored.cols : stored.rows;
  auto prepared = std::make_unique<CpuWeight>(outputs, stored.rows + stored.cols - outputs, type);
  PackedMatrix& packed = prepared->packed;
  LWQ_RETURN_IF_ERROR(packed.Resize(products.gemm, outputs, prepared->in_features(), native));
  const auto& panels = packed.panels();
  LWQ_RETURN_IF_ERROR(RunAll(pool, static_cast<int64_t>(panels.size()), [&](int64_t i) {
    const PackedMatrix::Panel& panel = panels[static_cast<size_t>(i)];
    ConstMatrixView part =
        transposed ? stored.Cols(panel.begin, panel.size) : stored.Rows(panel.begin, panel.size);
    Matrix rounded;
    if (type == ComputeType::kBF16 && !native) {
      rounded = Matrix(part.rows, part.cols);
      if (rounded.data() == nullptr) return absl::ResourceExhaustedError("no memory for rounding");
      for (int64_t r = 0; r < part.rows; ++r) {
        RoundThroughBF16(part.Row(r), part.cols, rounded.Row(r));
      }
      part = rounded.view();
    }
    return packed.Pack(products.gemm, panel,
                       {.data = part.data,
                        .bf16 = false,
                        .n_stride = transposed ? 1 : part.stride,
                        .k_stride = transposed ? part.stride : 1});
  }));
  return prepared;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PreparedWeight>> CpuDevice::PrepareWeight(
    DeviceView<const float> weight, ComputeType type) {
  return Prepare(pool_, *products_, Host(weight), /*transposed=*/false, type);
}

absl::StatusOr<std::unique_ptr<PreparedWeight>> CpuDevice::PrepareTransposed(
    DeviceView<const float> b, ComputeType type) {
  return Prepare(pool_, *products_, Host(b), /*transposed=*/true, type);
}

absl::StatusOr<std::unique_ptr<PreparedInput>> CpuDevice::NewInput(int64_t rows, int64_t features,
                                                                   ComputeType type) {
  return CpuInput::Create(rows, features, type);
}

absl::Status CpuDevice::SetColumns(DeviceView<const float> values, int64_t first,
                                   PreparedInput& input) {
  auto* own = dynamic_cast<CpuInput*>(&input);
  if (own == nullptr) return absl::InvalidArgumentError("input was prepared by another device");
  LWQ_RETURN_IF_ERROR(CheckShape("input's columns", values, own->rows(), values.cols));
  LWQ_RETURN_IF_ERROR(CheckRange("input's columns", first, values.cols, own->features()));
  own->SetColumns(pool_, Host(values), first);
  return absl::OkStatus();
}

absl::Status CpuDevice::Linear(const PreparedInput& x, BiasedWeight weight, DeviceView<float> y) {
  LWQ_ASSIGN_OR_RETURN(const OwnOperands own, Own(x, *weight.weight, y));
  LWQ_ASSIGN_OR_RETURN(const float* bias, BiasOf(weight));
  return StoreLinear(pool_, *products_, own.input, *own.weight, bias, y);
}

absl::Status CpuDevice::Linear(DeviceView<const float> x, BiasedWeight weight,
                               DeviceView<float> y) {
  LWQ_ASSIGN_OR_RETURN(const CpuWeight* w, OwnWeight(*weight.weight, x));
  LWQ_RETURN_IF_ERROR(CheckShape("linear output", y, x.rows, w->out_features()));
  LWQ_ASSIGN_OR_RETURN(const Operand input, InputOf(pool_, x, *w, *products_));
  LWQ_ASSIGN_OR_RETURN(const float* bias, BiasOf(weight));
  return StoreLinear(pool_, *products_, input, *w, bias, y);
}

absl::Status CpuDevice::AddLinear(DeviceView<const float> x, BiasedWeight weight,
                                  DeviceView<float> y) {
  LWQ_ASSIGN_OR_RETURN(const CpuWeight* w, OwnWeight(*weight.weight, x));
  LWQ_RETURN_IF_ERROR(CheckShape("linear output", y, x.rows, w->out_features()));
  LWQ_ASSIGN_OR_RETURN(const Operand input, InputOf(pool_, x, *w, *products_));
  LWQ_ASSIGN_OR_RETURN(const float* bias, BiasOf(weight));
  return ForEachSum(pool_, *products_, input, *w,
                    [&](const float* sums, int64_t count, int64_t row, int64_t first) {
                      float* to = Row(y, row) + first;
                      AddRow(sums, count, to);
                      if (bias != nullptr) AddRow(bias + first, count, to);
                    });
}

absl::Status CpuDevice::SubtractLinear(const PreparedInput& x, const PreparedWeight& weight,
                                       DeviceView<float> y) {
  LWQ_ASSIGN_OR_RETURN(const OwnOperands own, Own(x, weight, y));
  return SubtractSums(pool_, *products_, own.input, *own.weight, y);
}

absl::Status CpuDevice::SubtractLinear(DeviceView<const float> x, const PreparedWeight& weight,
                                       DeviceView<float> y) {
  LWQ_ASSIGN_OR_RETURN(const CpuWeight* w, OwnWeight(weight, x));
  LWQ_RETURN_IF_ERROR(CheckShape("linear output", y, x.rows, w->out_features()));
  LWQ_ASSIGN_OR_RETURN(const Operand input, InputOf(pool_, x, *w, *products_));
  return SubtractSums(pool_, *products_, input, *w, y);
}

absl::Status CpuDevice::GatedLinear(DeviceView<const float> x, BiasedWeight gate, BiasedWeight up,
                                    Activation activation, DeviceView<float> y) {
  LWQ_ASSIGN_OR_RETURN(const CpuWeight* g, OwnWeight(*gate.weight, x));
  LWQ_ASSIGN_OR_RETURN(const CpuWeight* u, OwnWeight(*up.weight, x));
  LWQ_RETURN_IF_ERROR(CheckShape("linear output", y, x.rows, g->out_features()));
  if (u->out_features() != g->out_features() || u->type() != g->type()) {
    return absl::InvalidArgumentError("gate and up are not of one shape and type");
  }
  LWQ_ASSIGN_OR_RETURN(const Operand input, InputOf(pool_, x, *g, *products_));
  LWQ_ASSIGN_OR_RETURN(const float* gate_bias, BiasOf(gate));
  LWQ_ASSIGN_OR_RETURN(const float* up_bias, BiasOf(up));
  PackedProduct product(&pool_, products_.get(), input, &g->packed);
  return product.Run([&](const PackedProduct::Tile& tile) -> absl::Status {
    float* gates = ThreadTile(0);
    float* ups = ThreadTile(1);
    LWQ_RETURN_IF_ERROR(product.Multiply(tile, g->packed, gates));
    LWQ_RETURN_IF_ERROR(product.Multiply(tile, u->packed, ups));
    ForEachRow(tile, [&](int64_t offset, int64_t count, int64_t row, int64_t first) {
      if (gate_bias != nullptr) AddRow(gate_bias + first, count, gates + offset);
      if (up_bias != nullptr) AddRow(up_bias + first, count, ups + offset);
      GateRow(activation, gates + offset, ups + offset, count, Row(y, row) + first);
    });
    return absl::OkStatus();
  });
}

absl::Status CpuDevice::SubtractProduct(DeviceView<const float> a, DeviceView<const float> b,
                                        DeviceView<float> c) {
  LWQ_RETURN_IF_ERROR(CheckShape("product's left side", a, c.rows, b.rows));
  LWQ_RETURN_IF_ERROR(CheckShape("product's right side", b, a.cols, c.cols));
  if (c.rows == 0 || c.cols == 0 || a.cols == 0) return absl::OkStatus();
  const int64_t panels = CeilDiv(c.cols, kColumns);
  const int64_t tile = TileRows(c.rows, panels);
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
    return OnednnGemm::Run(*kernel, Row(a, row), Host(b.data) + col, Row(c, row) + col);
  });
}

}  // namespace lwq

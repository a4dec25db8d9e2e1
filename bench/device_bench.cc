// How near does each operation of a device come to what the device can do? Its copies give the
// limit of what moves bytes, its largest square products that of what multiplies; every operation
// runs at the shapes of a model's layer and is printed with its share of the nearer of the two.
// Goals on a GPU: .7 of the products, .6 of the copies. It is no test: conformance_test says what
// is right.
//
// Usage: device_bench [cpu|cuda:N|reference] [sample|1b|7b]     (auto, sample)
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "bench/stopwatch.h"
#include "worker/engine/device/device.h"
#include "worker/engine/gguf/block_type.h"
#include "worker/engine/tensor/pack_bits.h"

namespace lwq {
namespace {

struct Shape {
  const char* name;
  int64_t tokens, hidden, inner, heads, kv_heads, head_dim, vocabulary;
};
constexpr Shape kShapes[] = {
    {"sample", 1024, 320, 864, 5, 5, 64, 4096},
    {"1b", 8192, 2048, 8192, 32, 8, 64, 128256},
    {"7b", 8192, 4096, 11008, 32, 32, 128, 32000},
};
constexpr int64_t kSequence = 512, kBlock = 128, kGroup = 128 / 2;

class Bench {
 public:
  Bench(Device* device, const Shape& shape) : device_(*device), s_(shape) {}

  absl::Status Run() {
    LWQ_RETURN_IF_ERROR(MeasureLimits());
    std::printf("\n%-34s %10s %9s %9s %7s\n", "operation", "ms", "GB/s", "TFLOP/s", "share");
    LWQ_RETURN_IF_ERROR(Moves());
    LWQ_RETURN_IF_ERROR(Products());
    LWQ_RETURN_IF_ERROR(DecoderPieces());
    LWQ_RETURN_IF_ERROR(Logits());
    LWQ_RETURN_IF_ERROR(Grids());
    LWQ_RETURN_IF_ERROR(Stored());
    return SecondOrder();
  }

 private:
  using Call = std::function<absl::Status()>;
  using Floats = std::unique_ptr<DeviceMatrix>;

  // Of one call, whose work has ended; the best of some runs of a tenth of a second.
  absl::StatusOr<double> Seconds(const Call& call) {
    LWQ_RETURN_IF_ERROR(call());  // first use sets things up
    LWQ_RETURN_IF_ERROR(device_.Synchronize());
    Stopwatch once;
    LWQ_RETURN_IF_ERROR(call());
    LWQ_RETURN_IF_ERROR(device_.Synchronize());
    const int count = std::max(1, static_cast<int>(0.1 / std::max(once.Lap(), 1e-7)));
    absl::Status status;
    const double seconds = BestSeconds(3, [&] {
      for (int i = 0; i < count && status.ok(); ++i) status = call();
      if (status.ok()) status = device_.Synchronize();
    });
    if (!status.ok()) return status;
    return seconds / count;
  }

  // `bytes` are read and written once at least; `flops` are made on the units of `type`.
  absl::Status Row(const std::string& name, double bytes, double flops, ComputeType type,
                   const Call& call) {
    LWQ_ASSIGN_OR_RETURN(const double seconds, Seconds(call));
    const double peak = type == ComputeType::kBF16 ? bf16_flops_ : f32_flops_;
    const double floor = std::max(bytes / copy_bytes_, flops / peak);
    std::printf("%-34s %10.3f %9.1f %9.2f %7.2f\n", name.c_str(), seconds * 1e3,
                bytes / seconds * 1e-9, flops / seconds * 1e-12, floor / seconds);
    return absl::OkStatus();
  }
  absl::Status Moving(const std::string& name, double bytes, const Call& call) {
    return Row(name, bytes, 0, ComputeType::kF32, call);
  }

  // Small values of both signs.
  absl::StatusOr<Floats> Noise(int64_t rows, int64_t cols) {
    LWQ_ASSIGN_OR_RETURN(Floats m, device_.NewMatrix(rows, cols));
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t j = 0; j < cols; ++j)
      row[j] = static_cast<float>((j * 37 + 11) % 101 - 50) * 1e-2f;
    for (int64_t i = 0; i < rows; ++i) {
      LWQ_RETURN_IF_ERROR(device_.Upload<float>({row.data(), 1, cols, cols}, m->view().Rows(i, 1)));
    }
    return m;
  }
  // Ones on the diagonal, `besides` everywhere else: positive definite.
  absl::StatusOr<Floats> Definite(int64_t n, float besides) {
    LWQ_ASSIGN_OR_RETURN(Floats m, device_.NewMatrix(n, n));
    std::vector<float> row(static_cast<size_t>(n), besides);
    for (int64_t i = 0; i < n; ++i) {
      row[i] = 1;
      LWQ_RETURN_IF_ERROR(device_.Upload<float>({row.data(), 1, n, n}, m->view().Rows(i, 1)));
      row[i] = besides;
    }
    return m;
  }
  template <typename T>
  absl::StatusOr<std::unique_ptr<DeviceBuffer<T>>> Filled(int64_t size,
                                                          const std::function<T(int64_t)>& value) {
    std::vector<T> host(static_cast<size_t>(size));
    for (int64_t i = 0; i < size; ++i) host[i] = value(i);
    LWQ_ASSIGN_OR_RETURN(auto buffer, device_.NewBuffer<T>(1, size));
    LWQ_RETURN_IF_ERROR(device_.Upload<T>(absl::MakeConstSpan(host), buffer->span()));
    return buffer;
  }

  absl::StatusOr<double> ProductFlops(int64_t size, ComputeType type) {
    LWQ_ASSIGN_OR_RETURN(const Floats x, Noise(size, size));
    LWQ_ASSIGN_OR_RETURN(const Floats y, device_.NewMatrix(size, size));
    LWQ_ASSIGN_OR_RETURN(const auto weight, device_.PrepareWeight(x->view(), type));
    LWQ_ASSIGN_OR_RETURN(const double seconds,
                         Seconds([&] { return device_.Linear(x->view(), *weight, y->view()); }));
    return 2.0 * static_cast<double>(size) * size * size / seconds;
  }

  absl::Status MeasureLimits() {
    const int64_t rows = s_.tokens, cols = s_.inner;
    LWQ_ASSIGN_OR_RETURN(const Floats a, Noise(rows, cols));
    LWQ_ASSIGN_OR_RETURN(const Floats b, device_.NewMatrix(rows, cols));
    LWQ_ASSIGN_OR_RETURN(const double seconds,
                         Seconds([&] { return device_.Copy<float>(a->view(), b->view()); }));
    copy_bytes_ = 8.0 * static_cast<double>(rows * cols) / seconds;
    for (int64_t size = 512; size <= std::max<int64_t>(s_.hidden * 2, 512); size *= 2) {
      LWQ_ASSIGN_OR_RETURN(const double f32, ProductFlops(size, ComputeType::kF32));
      f32_flops_ = std::max(f32_flops_, f32);
      if (!device_.Supports(ComputeType::kBF16)) continue;
      LWQ_ASSIGN_OR_RETURN(const double bf16, ProductFlops(size, ComputeType::kBF16));
      bf16_flops_ = std::max(bf16_flops_, bf16);
    }
    std::printf("limits: copies %.1f GB/s, products F32 %.2f TFLOP/s, BF16 %.2f TFLOP/s\n",
                copy_bytes_ * 1e-9, f32_flops_ * 1e-12, bf16_flops_ * 1e-12);
    return absl::OkStatus();
  }

  absl::Status Moves() {
    const int64_t out = s_.inner, in = s_.hidden;
    const double size = static_cast<double>(out * in);
    LWQ_ASSIGN_OR_RETURN(const Floats w, Noise(out, in));
    LWQ_ASSIGN_OR_RETURN(const auto half, device_.NewBuffer<BF16>(out, in));
    std::vector<BF16> host(static_cast<size_t>(out * in));
    const HostView<const BF16> stored{host.data(), out, in, in};
    LWQ_RETURN_IF_ERROR(Moving("upload, bf16", 2 * size,
                               [&] { return device_.Upload<BF16>(stored, half->view()); }));
    LWQ_RETURN_IF_ERROR(
        Moving("widen bf16", 6 * size, [&] { return device_.Widen(half->view(), w->view()); }));
    LWQ_RETURN_IF_ERROR(Moving("zeros", 4 * size, [&] { return device_.FillZero(w->view()); }));
    LWQ_RETURN_IF_ERROR(
        Moving("look for NaN", 4 * size, [&] { return device_.CheckFinite("w", w->view()); }));
    return Moving("prepare a weight, bf16", 6 * size,
                  [&] { return device_.PrepareWeight(w->view(), ComputeType::kBF16).status(); });
  }

  absl::Status Products() {
    for (const ComputeType type : {ComputeType::kF32, ComputeType::kBF16}) {
      if (!device_.Supports(type)) continue;
      const std::string suffix = type == ComputeType::kF32 ? ", f32" : ", bf16";
      const double t = s_.tokens, h = s_.hidden, i = s_.inner;
      LWQ_ASSIGN_OR_RETURN(const Floats x, Noise(s_.tokens, s_.hidden));
      LWQ_ASSIGN_OR_RETURN(const Floats y, device_.NewMatrix(s_.tokens, s_.inner));
      LWQ_ASSIGN_OR_RETURN(const Floats w, Noise(s_.inner, s_.hidden));
      LWQ_ASSIGN_OR_RETURN(const auto up, device_.PrepareWeight(w->view(), type));
      LWQ_RETURN_IF_ERROR(Row("linear, up" + suffix, 4 * (t * h + t * i), 2 * t * h * i, type,
                              [&] { return device_.Linear(x->view(), *up, y->view()); }));
      LWQ_RETURN_IF_ERROR(Row(
          "gate and up" + suffix, 4 * (t * h + t * i), 4 * t * h * i, type,
          [&] { return device_.GatedLinear(x->view(), *up, *up, Activation::kSilu, y->view()); }));
      LWQ_ASSIGN_OR_RETURN(const Floats gram, device_.NewMatrix(s_.hidden, s_.hidden));
      LWQ_RETURN_IF_ERROR(device_.FillZero(gram->view()));
      LWQ_RETURN_IF_ERROR(Row("second moments" + suffix, 4 * (t * h + h * h), t * h * h, type, [&] {
        return device_.AccumulateGram(x->view(), type, gram->view());
      }));
    }
    return absl::OkStatus();
  }

  absl::Status DecoderPieces() {
    const int64_t width = s_.heads * s_.head_dim, kv_width = s_.kv_heads * s_.head_dim;
    const double t = s_.tokens, h = s_.hidden, i = s_.inner, d = width, kv = kv_width;
    LWQ_ASSIGN_OR_RETURN(const Floats x, Noise(s_.tokens, s_.hidden));
    LWQ_ASSIGN_OR_RETURN(const Floats y, Noise(s_.tokens, s_.hidden));
    LWQ_ASSIGN_OR_RETURN(const auto norm, Filled<float>(s_.hidden, [](int64_t) { return 1.0f; }));
    LWQ_RETURN_IF_ERROR(Moving("norm", 8 * t * h, [&] {
      return device_.RmsNorm(x->view(), norm->span(), 1e-5f, y->view());
    }));
    LWQ_RETURN_IF_ERROR(
        Moving("add", 12 * t * h, [&] { return device_.Add(x->view(), y->view()); }));
    LWQ_RETURN_IF_ERROR(Moving("round rows to int8", 8 * t * h, [&] {
      return device_.RoundRows(ActivationRule::kInt8PerToken, y->view());
    }));
    LWQ_ASSIGN_OR_RETURN(const auto cosine, device_.NewBuffer<double>(1, s_.tokens));
    LWQ_RETURN_IF_ERROR(Moving("cosine of rows", 8 * t * h, [&] {
      return device_.RowCosine(x->view(), y->view(), cosine->span());
    }));
    LWQ_ASSIGN_OR_RETURN(const Floats gate, Noise(s_.tokens, s_.inner));
    LWQ_ASSIGN_OR_RETURN(const Floats up, Noise(s_.tokens, s_.inner));
    LWQ_RETURN_IF_ERROR(Moving("gate", 12 * t * i, [&] {
      return device_.Gate(gate->view(), up->view(), Activation::kSilu, up->view());
    }));

    std::vector<Segment> segments;
    std::vector<int32_t> positions(static_cast<size_t>(s_.tokens));
    for (int64_t begin = 0; begin < s_.tokens; begin += kSequence) {
      segments.push_back({.begin = begin, .size = std::min(kSequence, s_.tokens - begin)});
    }
    for (int64_t token = 0; token < s_.tokens; ++token)
      positions[token] = static_cast<int32_t>(token % kSequence);
    LWQ_ASSIGN_OR_RETURN(const auto batch, device_.NewBatch(segments, positions));
    const std::vector<float> frequencies(static_cast<size_t>(s_.head_dim / 2), 0.01f);
    LWQ_ASSIGN_OR_RETURN(const auto table,
                         device_.NewRopeTable({.inverse_frequency = frequencies}, kSequence));
    LWQ_ASSIGN_OR_RETURN(const Floats q, Noise(s_.tokens, width));
    LWQ_ASSIGN_OR_RETURN(const Floats k, Noise(s_.tokens, kv_width));
    LWQ_ASSIGN_OR_RETURN(const Floats out, device_.NewMatrix(s_.tokens, width));
    LWQ_RETURN_IF_ERROR(
        Moving("rope", 8 * t * d, [&] { return device_.Rope(*batch, *table, q->view()); }));
    const AttentionShape attention{.num_heads = static_cast<int>(s_.heads),
                                   .num_kv_heads = static_cast<int>(s_.kv_heads),
                                   .head_dim = static_cast<int>(s_.head_dim),
                                   .scale = 0.1f};
    return Row(
        "attention", 8 * t * (d + kv), 4 * t * (kSequence / 2.0) * d, ComputeType::kF32, [&] {
          return device_.Attention(q->view(), k->view(), k->view(), *batch, attention, out->view());
        });
  }

  absl::Status Logits() {
    const int64_t rows = 256;
    const double size = static_cast<double>(rows * s_.vocabulary);
    LWQ_ASSIGN_OR_RETURN(const Floats p, Noise(rows, s_.vocabulary));
    LWQ_ASSIGN_OR_RETURN(const Floats q, Noise(rows, s_.vocabulary));
    LWQ_ASSIGN_OR_RETURN(const auto kl, device_.NewBuffer<double>(1, rows));
    LWQ_ASSIGN_OR_RETURN(const auto top, device_.NewBuffer<float>(1, rows));
    LWQ_ASSIGN_OR_RETURN(const auto best, device_.NewBuffer<int32_t>(1, rows));
    LWQ_ASSIGN_OR_RETURN(const auto total, device_.NewBuffer<double>(1, rows));
    LWQ_RETURN_IF_ERROR(Moving("sums of logits", 4 * size, [&] {
      return device_.SumLogits(p->view(), 0, {top->span(), best->span(), total->span()});
    }));
    LWQ_RETURN_IF_ERROR(
        Moving("log-softmax", 8 * size, [&] { return device_.LogSoftmax(p->view()); }));
    return Moving("KL divergence", 8 * size,
                  [&] { return device_.KlDivergence(p->view(), q->view(), kl->span()); });
  }

  absl::Status Grids() {
    const int64_t rows = s_.inner, cols = s_.hidden / kGroup * kGroup;
    const double size = static_cast<double>(rows * cols);
    const GridSpec grid{.bits = 4, .group_size = kGroup};
    LWQ_ASSIGN_OR_RETURN(const Floats w, Noise(rows, cols));
    LWQ_ASSIGN_OR_RETURN(const Floats scales, device_.NewMatrix(rows, cols / kGroup));
    LWQ_ASSIGN_OR_RETURN(const auto codes, device_.NewBuffer<uint8_t>(rows, cols));
    LWQ_ASSIGN_OR_RETURN(const auto packed,
                         device_.NewBuffer<uint8_t>(rows, 4 * PackedWords(cols, 4)));
    LWQ_RETURN_IF_ERROR(device_.FillZero(packed->view()));
    const DeviceView<float> none;
    LWQ_RETURN_IF_ERROR(
        Row("fit grids with search", 4 * size, 6 * 70 * size, ComputeType::kF32,
            [&] { return device_.FitGrid(w->view(), grid, {}, scales->view(), none); }));
    LWQ_RETURN_IF_ERROR(Moving("round to a grid", 5 * size, [&] {
      return device_.RoundToGrid(w->view(), grid, scales->view(), none, codes->view());
    }));
    LWQ_RETURN_IF_ERROR(Moving("unpack 4 bits", 1.5 * size, [&] {
      return device_.UnpackCodes(packed->view(), 4, codes->view());
    }));
    return Moving("dequantize", 5 * size, [&] {
      return device_.Dequantize(codes->view(), grid, scales->view(), none, w->view());
    });
  }

  // What is stored in GGUF's blocks, a small type and a large one, and in 8-bit floats.
  absl::Status Stored() {
    const int64_t rows = s_.inner;
    for (const GgufType which : {GgufType::kQ4_0, GgufType::kQ4_K}) {
      const GgufTypeDef& type = DefOf(which);
      const int64_t cols = s_.hidden / type.block_size * type.block_size;
      const int64_t row_bytes = type.RowBytes(cols);
      LWQ_ASSIGN_OR_RETURN(const auto blocks, device_.NewBuffer<uint8_t>(rows, row_bytes));
      LWQ_RETURN_IF_ERROR(device_.FillZero(blocks->view()));
      LWQ_ASSIGN_OR_RETURN(const Floats w, device_.NewMatrix(rows, cols));
      LWQ_RETURN_IF_ERROR(Moving(absl::StrCat("dequantize blocks, ", type.name),
                                 static_cast<double>(rows * (row_bytes + 4 * cols)), [&] {
                                   return device_.DequantizeBlocks(blocks->view(),
                                                                   *type.shape->layout, w->view());
                                 }));
    }
    LWQ_ASSIGN_OR_RETURN(const auto codes, device_.NewBuffer<uint8_t>(rows, s_.hidden));
    LWQ_RETURN_IF_ERROR(device_.FillZero(codes->view()));
    LWQ_ASSIGN_OR_RETURN(const Floats scales, Noise(rows, 1));
    LWQ_ASSIGN_OR_RETURN(const Floats w, device_.NewMatrix(rows, s_.hidden));
    return Moving("dequantize E4M3", 5 * static_cast<double>(rows * s_.hidden),
                  [&] { return device_.DequantizeE4M3(codes->view(), scales->view(), w->view()); });
  }

  absl::Status SecondOrder() {
    const int64_t rows = s_.inner, n = s_.hidden;
    const double size = static_cast<double>(rows * kBlock), square = static_cast<double>(n * n);
    LWQ_ASSIGN_OR_RETURN(const Floats h, Definite(n, 1e-3f));
    LWQ_ASSIGN_OR_RETURN(const Floats copy, device_.NewMatrix(n, n));
    LWQ_RETURN_IF_ERROR(Row("factor and inverse (of a copy)", 24 * square,
                            2.0 / 3 * square * static_cast<double>(n), ComputeType::kF32,
                            [&]() -> absl::Status {
                              LWQ_RETURN_IF_ERROR(device_.Copy<float>(h->view(), copy->view()));
                              return device_.InverseCholesky(copy->view());
                            }));
    LWQ_RETURN_IF_ERROR(Moving("scale and mirror", 6 * square,
                               [&] { return device_.ScaleAndMirror(1, copy->view()); }));
    LWQ_ASSIGN_OR_RETURN(const Floats w, Noise(rows, kBlock));
    LWQ_ASSIGN_OR_RETURN(const Floats u, Definite(kBlock, 0.01f));
    LWQ_ASSIGN_OR_RETURN(const Floats scales, Noise(rows, kBlock / kGroup));
    LWQ_ASSIGN_OR_RETURN(const Floats error, device_.NewMatrix(rows, kBlock));
    LWQ_ASSIGN_OR_RETURN(const auto codes, device_.NewBuffer<uint8_t>(rows, kBlock));
    LWQ_ASSIGN_OR_RETURN(const auto loss, Filled<double>(rows, [](int64_t) { return 0.0; }));
    LWQ_ASSIGN_OR_RETURN(const auto columns, Filled<int32_t>(kBlock, [](int64_t j) {
                           return static_cast<int32_t>(j);
                         }));
    const GridSpec grid{.bits = 4, .group_size = kGroup};
    LWQ_RETURN_IF_ERROR(device_.FitGrid(w->view(), grid, {}, scales->view(), {}));
    const GptqColumns gptq{.w = w->view(),
                           .u = u->view(),
                           .grid = grid,
                           .scales = scales->view(),
                           .columns = columns->span(),
                           .in_features = kBlock,
                           .codes = codes->view(),
                           .error = error->view(),
                           .loss = loss->span()};
    LWQ_RETURN_IF_ERROR(Row("GPTQ's columns, one block", 13 * size, size * kBlock,
                            ComputeType::kF32, [&] { return device_.GptqBlock(gptq); }));
    const RefinementBlock refine{.residual = w->view(),
                                 .h = u->view(),
                                 .grid = grid,
                                 .scales = scales->view(),
                                 .codes = codes->view(),
                                 .change = error->view(),
                                 .gain = loss->span()};
    return Row("refinement's columns, one block", 14 * size, 3 * size * kBlock, ComputeType::kF32,
               [&] { return device_.RefineBlock(refine); });
  }

  Device& device_;
  const Shape s_;
  double copy_bytes_ = 0, f32_flops_ = 0, bf16_flops_ = 0;
};

int Main(int argc, char** argv) {
  const std::string wanted = argc > 2 ? argv[2] : "sample";
  for (const Shape& shape : kShapes) {
    if (wanted != shape.name) continue;
    auto device = MakeDevice({.device = argc > 1 ? argv[1] : "auto"});
    if (!device.ok()) {
      std::fprintf(stderr, "%s\n", device.status().ToString().c_str());
      return 1;
    }
    std::printf("%s, shape %s\n", (*device)->Description().c_str(), shape.name);
    const absl::Status status = Bench(device->get(), shape).Run();
    if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return status.ok() ? 0 : 1;
  }
  std::fprintf(stderr, "device_bench [cpu|cuda:N|reference] [sample|1b|7b]\n");
  return 2;
}

}  // namespace
}  // namespace lwq

int main(int argc, char** argv) { return lwq::Main(argc, argv); }

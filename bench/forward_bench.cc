// How fast is a decoder layer against the matrix products it is made of? Runs one layer of hidden
// size 2048 and intermediate size 5632 (16 heads of 128) over 2,048 tokens in four sequences and
// prints tokens a second, the rate of its products, and the share that is of what oneDNN itself
// reaches with all threads on [2048, 2048] x [2048, 5632] in the same run. Goal: 0.7. Where the
// processor has no BF16 products, BF16 is rounded inputs to F32 ones, and so is its limit.
//
// Usage: forward_bench [threads]
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#include "base/status_macros.h"
#include "dnnl.hpp"
#include "worker/engine/device/cpu/onednn_gemm.h"
#include "worker/engine/model/decoder.h"

namespace lwq {
namespace {

constexpr int64_t kHidden = 2048, kIntermediate = 5632, kTokens = 2048;
constexpr int kRepeats = 5;

float Noise(uint64_t i) {
  i = (i + 1) * 0x9e3779b97f4a7c15u;
  i = (i ^ (i >> 29)) * 0xbf58476d1ce4e5b9u;
  return static_cast<float>(static_cast<double>(i >> 11) * 0x1p-53 - 0.5) * 0.05f;
}

class NoiseWeights : public WeightSource {
 public:
  absl::Status ReadLinear(absl::string_view, MatrixView out) const override { return Fill(out); }
  absl::Status ReadDense(absl::string_view, int64_t, MatrixView out) const override {
    return Fill(out);
  }
  bool HasDense(absl::string_view) const override { return true; }

 private:
  static absl::Status Fill(MatrixView out) {
    for (int64_t i = 0; i < out.rows * out.cols; ++i) {
      out.data[i] = Noise(static_cast<uint64_t>(i));
    }
    return absl::OkStatus();
  }
};

double BestSeconds(const std::function<void()>& body) {
  body();
  double best = 1e30;
  for (int i = 0; i < kRepeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    best = std::min(best, spent.count());
  }
  return best;
}

// Floating-point operations a second of oneDNN's own product with its own threads and layouts.
double OnednnRate(bool bf16, int threads) {
  using dnnl::memory;
  omp_set_num_threads(threads);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const auto type = bf16 ? memory::data_type::bf16 : memory::data_type::f32;
  const memory::desc a({kTokens, kHidden}, type, memory::format_tag::ab);
  const memory::desc b({kHidden, kIntermediate}, type, memory::format_tag::any);
  const memory::desc c({kTokens, kIntermediate}, memory::data_type::f32, memory::format_tag::ab);
  const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(a, b, c), engine);
  memory left(a, engine), right(desc.weights_desc(), engine), out(c, engine);
  // A pattern that is a small finite number in both types.
  std::fill_n(static_cast<uint16_t*>(left.get_data_handle()), a.get_size() / 2, 0x3c01);
  std::fill_n(static_cast<uint16_t*>(right.get_data_handle()), desc.weights_desc().get_size() / 2,
              0x3c01);
  const dnnl::matmul product(desc);
  const double seconds = BestSeconds([&] {
    product.execute(stream, {{DNNL_ARG_SRC, left}, {DNNL_ARG_WEIGHTS, right}, {DNNL_ARG_DST, out}});
    stream.wait();
  });
  return 2.0 * kTokens * kHidden * kIntermediate / seconds;
}

absl::StatusOr<double> LayerSeconds(ComputeType compute, int threads) {
  LWQ_ASSIGN_OR_RETURN(auto device, MakeDevice({.device = "cpu", .num_threads = threads}));
  DecoderSpec spec;
  spec.num_layers = 1;
  spec.hidden_size = kHidden;
  spec.intermediate_size = kIntermediate;
  spec.num_heads = spec.num_kv_heads = 16;
  spec.head_dim = 128;
  spec.vocab_size = 8;
  const NoiseWeights weights;
  LWQ_ASSIGN_OR_RETURN(auto decoder, Decoder::Create(spec, &weights, device.get(), compute));
  LWQ_ASSIGN_OR_RETURN(const LayerWeights layer, decoder->LoadLayer(0));
  TokenBatch batch;
  for (int i = 0; i < 4; ++i) batch.Add(std::vector<int32_t>(kTokens / 4, 1));
  Matrix hidden(kTokens, kHidden);
  absl::Status status;
  const double seconds = BestSeconds([&] {
    for (int64_t i = 0; i < hidden.size(); ++i) hidden.data()[i] = Noise(static_cast<uint64_t>(i));
    status.Update(decoder->RunLayer(layer, batch, hidden.view()));
  });
  if (!status.ok()) return status;
  return seconds;
}

int Main(int threads) {
  const double flops = 2.0 * kTokens * (4.0 * kHidden * kHidden + 3.0 * kHidden * kIntermediate);
  std::printf("%-8s %12s %14s %14s %8s\n", "compute", "tokens/s", "layer GFLOP/s", "oneDNN GFLOP/s",
              "share");
  for (ComputeType compute : {ComputeType::kF32, ComputeType::kBF16}) {
    const absl::StatusOr<double> seconds = LayerSeconds(compute, threads);
    if (!seconds.ok()) {
      std::fprintf(stderr, "forward_bench: %s\n", seconds.status().ToString().c_str());
      return 1;
    }
    const bool bf16 = compute == ComputeType::kBF16 && OnednnGemm::HasNativeBF16();
    const double rate = OnednnRate(bf16, threads);
    std::printf("%-8s %12.0f %14.1f %14.1f %8.2f\n", NameOf(compute).data(),
                static_cast<double>(kTokens) / *seconds, flops / *seconds * 1e-9, rate * 1e-9,
                flops / *seconds / rate);
  }
  return 0;
}

}  // namespace
}  // namespace lwq

int main(int argc, char** argv) {
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return lwq::Main(argc > 1 ? std::max(1, std::atoi(argv[1])) : cores);
}

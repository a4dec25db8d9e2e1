// How fast is a decoder layer against the matrix products it is made of? Runs one layer of hidden
// size 2048 and intermediate size 5632 (16 heads of 128) over 2,048 tokens in four sequences and
// prints tokens a second, the rate of its products, and the share that is of what oneDNN itself
// reaches with all threads on [2048, 2048] x [2048, 5632] in the same run. Goal: 0.7. Where the
// processor has no BF16 products, BF16 is rounded inputs to F32 ones, and so is its limit.
//
// Usage: forward_bench [threads] [f32|bf16]
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
#include "worker/engine/model/llama_config.h"

namespace lwq {
namespace {

constexpr int64_t kHidden = 2048, kIntermediate = 5632, kTokens = 2048;
constexpr int kRepeats = 25;

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

double Seconds(const std::function<void()>& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
  return spent.count();
}

// oneDNN's own product with its own threads and layouts.
class OnednnProduct {
 public:
  static constexpr double kFlops = 2.0 * kTokens * kHidden * kIntermediate;

  OnednnProduct(bool bf16, int threads) : threads_(threads) {
    omp_set_num_threads(threads_);
    const auto type = bf16 ? memory::data_type::bf16 : memory::data_type::f32;
    const memory::desc a({kTokens, kHidden}, type, memory::format_tag::ab);
    const memory::desc b({kHidden, kIntermediate}, type, memory::format_tag::any);
    const memory::desc c({kTokens, kIntermediate}, memory::data_type::f32, memory::format_tag::ab);
    const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(a, b, c), engine_);
    left_ = memory(a, engine_);
    right_ = memory(desc.weights_desc(), engine_);
    out_ = memory(c, engine_);
    // A pattern that is a small finite number in both types.
    std::fill_n(static_cast<uint16_t*>(left_.get_data_handle()), a.get_size() / 2, 0x3c01);
    std::fill_n(static_cast<uint16_t*>(right_.get_data_handle()),
                desc.weights_desc().get_size() / 2, 0x3c01);
    product_ = dnnl::matmul(desc);
  }
  void Run() {
    omp_set_num_threads(threads_);
    product_.execute(stream_,
                     {{DNNL_ARG_SRC, left_}, {DNNL_ARG_WEIGHTS, right_}, {DNNL_ARG_DST, out_}});
    stream_.wait();
  }

 private:
  using memory = dnnl::memory;
  const int threads_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  memory left_, right_, out_;
  dnnl::matmul product_;
};

struct Best {
  double layer = 1e30, onednn = 1e30;  // seconds
};

// The two take turns, so that a machine that grows faster or slower does so for both.
absl::StatusOr<Best> Measure(ComputeType compute, int threads) {
  LWQ_ASSIGN_OR_RETURN(auto device, MakeDevice({.device = "cpu", .num_threads = threads}));
  LlamaShapedConfig config;
  config.num_layers = 1;
  DecoderSpec& spec = config.spec;
  spec.hidden_size = kHidden;
  spec.intermediate_size = kIntermediate;
  spec.num_heads = spec.num_kv_heads = 16;
  spec.head_dim = 128;
  spec.vocab_size = 8;
  const NoiseWeights weights;
  LWQ_ASSIGN_OR_RETURN(auto decoder,
                       Decoder::Create(MakeLlamaShaped(config), &weights, device.get(), compute));
  LWQ_ASSIGN_OR_RETURN(const LayerWeights layer, decoder->LoadLayer(0));
  TokenBatch batch;
  for (int i = 0; i < 4; ++i) batch.Add(std::vector<int32_t>(kTokens / 4, 1));
  Matrix hidden(kTokens, kHidden);
  OnednnProduct product(compute == ComputeType::kBF16 && OnednnGemm::HasNativeBF16(), threads);
  Best best;
  for (int i = 0; i < kRepeats; ++i) {
    for (int64_t j = 0; j < hidden.size(); ++j) hidden.data()[j] = Noise(static_cast<uint64_t>(j));
    absl::Status status;
    best.layer = std::min(
        best.layer, Seconds([&] { status = decoder->RunLayer(layer, batch, hidden.view()); }));
    if (!status.ok()) return status;
    // Several, to be about as long as the layer.
    for (int j = 0; j < 4; ++j) {
      best.onednn = std::min(best.onednn, Seconds([&] { product.Run(); }));
    }
  }
  return best;
}

int Main(int threads, absl::string_view only) {
  const double flops = 2.0 * kTokens * (4.0 * kHidden * kHidden + 3.0 * kHidden * kIntermediate);
  std::printf("%-8s %12s %14s %14s %8s\n", "compute", "tokens/s", "layer GFLOP/s", "oneDNN GFLOP/s",
              "share");
  for (ComputeType compute : {ComputeType::kF32, ComputeType::kBF16}) {
    if (!only.empty() && only != NameOf(compute)) continue;
    const absl::StatusOr<Best> best = Measure(compute, threads);
    if (!best.ok()) {
      std::fprintf(stderr, "forward_bench: %s\n", best.status().ToString().c_str());
      return 1;
    }
    const double rate = OnednnProduct::kFlops / best->onednn;
    std::printf("%-8s %12.0f %14.1f %14.1f %8.2f\n", NameOf(compute).data(),
                static_cast<double>(kTokens) / best->layer, flops / best->layer * 1e-9, rate * 1e-9,
                flops / best->layer / rate);
  }
  return 0;
}

}  // namespace
}  // namespace lwq

int main(int argc, char** argv) {
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return lwq::Main(argc > 1 ? std::max(1, std::atoi(argv[1])) : cores, argc > 2 ? argv[2] : "");
}

// GPTQ of one decoder layer of 2048 x 5632 (q, k, v, o 2048 x 2048; gate, up 5632 x 2048; down
// 2048 x 5632), by phase: second moments, factors, column loops at 4 bits and at 2, 3, 4 and 8
// together. Forward passes are not included. Inputs are random and correlated. Beside it, when
// given, a peer's seconds for the same layer and tokens, measured in the same hour on the same
// machine.
//
//   gptq_bench [tokens = 32768] [f32|bf16 = bf16] [threads] [peer's seconds a layer]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "bench/stopwatch.h"
#include "worker/engine/quant/quantizer.h"

namespace lwq {
namespace {

constexpr int64_t kHidden = 2048;
constexpr int64_t kInner = 5632;
constexpr int64_t kTokensPerBatch = 2048;

struct Settings {
  int64_t tokens = 32768;
  ComputeType type = ComputeType::kBF16;
  int threads = 1;
  double peer_seconds = 0;
};

struct Times {
  double gram = 0;
  double factor = 0;
  double one_width = 0;
  double four_widths = 0;
};

void FillCorrelated(Matrix* x, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> size(x->cols());
  for (float& s : size) s = std::exp(0.8f * normal(engine));
  for (int64_t t = 0; t < x->rows(); ++t) {
    float before = 0;
    for (int64_t k = 0; k < x->cols(); ++k) {
      // Uniform noise from the engine's bits: 30 M normal variates would take longer than the
      // bench.
      const float noise = static_cast<float>(static_cast<int32_t>(engine())) * 0x1p-31f;
      before = 0.8f * before + noise;
      x->Row(t)[k] = before * size[k];
    }
  }
}

// The linears that read one input of `in` features.
absl::Status QuantizeGroup(Device* device, const Settings& settings, int64_t in,
                           const std::vector<int64_t>& outs, Times* times) {
  Matrix inputs(kTokensPerBatch, in);
  FillCorrelated(&inputs, static_cast<uint64_t>(in));
  LWQ_ASSIGN_OR_RETURN(auto batch, device->NewMatrix(kTokensPerBatch, in));
  LWQ_RETURN_IF_ERROR(device->Upload(inputs.view(), batch->view()));
  LWQ_ASSIGN_OR_RETURN(auto gram, device->NewMatrix(in, in));
  LWQ_RETURN_IF_ERROR(device->FillZero(gram->view()));
  Stopwatch watch;
  for (int64_t t = 0; t < settings.tokens; t += kTokensPerBatch) {
    LWQ_RETURN_IF_ERROR(device->AccumulateGram(batch->view(), settings.type, gram->view()));
  }
  times->gram += watch.Lap();
  LWQ_ASSIGN_OR_RETURN(auto statistics,
                       InputStatistics::Create(device, std::move(gram), settings.tokens,
                                               {.compute = settings.type}));
  times->factor += watch.Lap();
  LWQ_ASSIGN_OR_RETURN(const QuantizerDef* def, FindQuantizer("gptq"));
  const std::unique_ptr<Quantizer> quantizer = def->make(OptionValues(def->options));
  for (const int64_t out : outs) {
    Matrix host(out, in);
    std::mt19937_64 engine(7);
    std::normal_distribution<float> normal(0, 0.02f);
    for (int64_t i = 0; i < host.size(); ++i) host.data()[i] = normal(engine);
    LWQ_ASSIGN_OR_RETURN(auto weight, device->NewMatrix(out, in));
    LWQ_RETURN_IF_ERROR(device->Upload(host.view(), weight->view()));
    watch.Lap();
    LWQ_RETURN_IF_ERROR(
        quantizer->Quantize(device, weight->view(), statistics.get(), {GridSpec{}}).status());
    times->one_width += watch.Lap();
    std::vector<GridSpec> grids;
    for (const int bits : {2, 3, 4, 8}) grids.push_back({.bits = bits});
    LWQ_RETURN_IF_ERROR(
        quantizer->Quantize(device, weight->view(), statistics.get(), grids).status());
    times->four_widths += watch.Lap();
  }
  return absl::OkStatus();
}

absl::Status Run(const Settings& settings) {
  LWQ_ASSIGN_OR_RETURN(auto device, MakeDevice({.device = "cpu", .num_threads = settings.threads}));
  std::printf("%s\n%lld tokens, second moments in %s\n", device->Description().c_str(),
              static_cast<long long>(settings.tokens), std::string(NameOf(settings.type)).c_str());
  Times total;
  const std::vector<std::pair<const char*, std::pair<int64_t, std::vector<int64_t>>>> groups = {
      {"q, k, v", {kHidden, {kHidden, kHidden, kHidden}}},
      {"o", {kHidden, {kHidden}}},
      {"gate, up", {kHidden, {kInner, kInner}}},
      {"down", {kInner, {kHidden}}}};
  for (const auto& [name, group] : groups) {
    Times times;
    LWQ_RETURN_IF_ERROR(QuantizeGroup(device.get(), settings, group.first, group.second, &times));
    std::printf(
        "%-9s gram %6.2f s, factor %6.2f s, columns at 4 bits %6.2f s, at 2+3+4+8 %6.2f s\n", name,
        times.gram, times.factor, times.one_width, times.four_widths);
    total.gram += times.gram;
    total.factor += times.factor;
    total.one_width += times.one_width;
    total.four_widths += times.four_widths;
  }
  const double shared = total.gram + total.factor;
  std::printf(
      "layer     gram %6.2f s, factor %6.2f s, columns at 4 bits %6.2f s, at 2+3+4+8 %6.2f s\n"
      "one width %.2f s; four widths %.2f s (forward passes not included)\n",
      total.gram, total.factor, total.one_width, total.four_widths, shared + total.one_width,
      shared + total.four_widths);
  if (settings.peer_seconds > 0) {
    std::printf("against the peer's %.1f s: one width %.3f of it; four widths %.3f of four runs\n",
                settings.peer_seconds, (shared + total.one_width) / settings.peer_seconds,
                (shared + total.four_widths) / (4 * settings.peer_seconds));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace lwq

int main(int argc, char** argv) {
  lwq::Settings settings;
  settings.threads = static_cast<int>(std::thread::hardware_concurrency());
  if (argc > 1) settings.tokens = std::atoll(argv[1]);
  if (argc > 2 && std::strcmp(argv[2], "f32") == 0) settings.type = lwq::ComputeType::kF32;
  if (argc > 3) settings.threads = std::max(1, std::atoi(argv[3]));
  if (argc > 4) settings.peer_seconds = std::atof(argv[4]);
  const absl::Status status = lwq::Run(settings);
  if (status.ok()) return 0;
  std::fprintf(stderr, "gptq_bench: %s\n", status.ToString().c_str());
  return 1;
}

// Round to nearest with and without the scale search, and packing, as a share of the memory
// bandwidth that a copy reaches with the same threads in the same run. One weight of 5632 x 2048;
// bytes are those that must move: weights read in F32, codes written, scales; for packing, codes
// read and words written.
//
//   rtn_bench [threads]
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "base/thread_pool.h"
#include "bench/stopwatch.h"
#include "worker/engine/device/device.h"
#include "worker/engine/tensor/pack_bits.h"

namespace lwq {
namespace {

constexpr int64_t kRows = 5632;
constexpr int64_t kCols = 2048;
constexpr int64_t kGroup = 128;
constexpr int kRuns = 5;

double CopyBytesPerSecond(ThreadPool* pool, const Matrix& from) {
  Matrix to(from.rows(), from.cols());
  std::memset(to.data(), 0, to.size() * sizeof(float));
  const double seconds = BestSeconds(kRuns, [&] {
    pool->ParallelForBlocks(from.rows(), 64, [&](int64_t begin, int64_t end) {
      std::memcpy(to.Row(begin), from.Row(begin), (end - begin) * from.cols() * sizeof(float));
    });
  });
  return 2.0 * static_cast<double>(from.size() * sizeof(float)) / seconds;
}

void Print(const char* what, double seconds, double bytes, double limit) {
  std::printf("%-28s %8.2f ms %7.2f GB/s %6.1f %% of copy\n", what, seconds * 1e3,
              bytes / seconds * 1e-9, 100 * bytes / seconds / limit);
}

absl::Status Run(int threads) {
  ThreadPool pool(threads);
  auto device = MakeDevice({.device = "cpu", .num_threads = threads});
  if (!device.ok()) return device.status();
  auto weight = (*device)->NewMatrix(kRows, kCols);
  auto scales = (*device)->NewMatrix(kRows, kCols / kGroup);
  if (!weight.ok()) return weight.status();
  if (!scales.ok()) return scales.status();
  Matrix host(kRows, kCols);
  std::mt19937_64 engine(1);
  std::normal_distribution<float> normal(0, 0.02f);
  for (int64_t i = 0; i < host.size(); ++i) host.data()[i] = normal(engine);
  absl::Status status = (*device)->Upload(host.view(), (*weight)->view());
  const double limit = CopyBytesPerSecond(&pool, host);
  std::printf("%s\ncopy with %d threads: %.1f GB/s read plus written\n",
              (*device)->Description().c_str(), threads, limit * 1e-9);

  auto device_codes = (*device)->NewBuffer<uint8_t>(kRows, kCols);
  if (!device_codes.ok()) return device_codes.status();
  std::vector<uint8_t> codes(kRows * kCols);
  const double size = static_cast<double>(kRows * kCols);
  for (const int bits : {2, 3, 4, 8}) {
    std::printf("%d bits\n", bits);
    for (const bool search : {false, true}) {
      const GridSpec grid{.bits = bits, .group_size = kGroup, .search = search};
      const double fit = BestSeconds(kRuns, [&] {
        status.Update((*device)->FitGrid((*weight)->view(), grid, {}, (*scales)->view(), {}));
      });
      const double round = BestSeconds(kRuns, [&] {
        status.Update((*device)->RoundToGrid((*weight)->view(), grid, (*scales)->view(), {},
                                             (*device_codes)->view()));
      });
      const double fit_bytes = size * sizeof(float) * (1 + 1.0 / kGroup);
      Print(search ? "  fit, search" : "  fit, min-max", fit, fit_bytes, limit);
      if (!search) Print("  round", round, size * (sizeof(float) + 1), limit);
      Print(search ? "  fit + round, search" : "  fit + round, min-max", fit + round,
            fit_bytes + size * (sizeof(float) + 1), limit);
    }
    status.Update((*device)->Download((*device_codes)->span(), absl::MakeSpan(codes)));
    std::vector<uint8_t> packed(kRows * 4 * PackedWords(kCols, bits));
    const double pack = BestSeconds(kRuns, [&] {
      pool.ParallelForBlocks(kRows, 16, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          PackBits(codes.data() + r * kCols, kCols, bits,
                   packed.data() + r * 4 * PackedWords(kCols, bits));
        }
      });
    });
    Print("  pack", pack, size + static_cast<double>(packed.size()), limit);
  }
  return status;
}

}  // namespace
}  // namespace lwq

int main(int argc, char** argv) {
  const int threads =
      argc > 1 ? std::atoi(argv[1]) : static_cast<int>(std::thread::hardware_concurrency());
  const absl::Status status = lwq::Run(std::max(1, threads));
  if (status.ok()) return 0;
  std::fprintf(stderr, "rtn_bench: %s\n", status.ToString().c_str());
  return 1;
}

#include "tests/testing/cuda_host/block_runner.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "tests/testing/cuda_host/fibre.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace lwq::cuda {

// What SharedMemory of launch.cuh finds: the dynamic shared memory of the block that runs.
alignas(16) unsigned char shared_bytes[cuda_host::kSharedBytes + cuda_host::kSharedGuard];

}  // namespace lwq::cuda

namespace lwq::cuda_host {
namespace {

constexpr unsigned kWarp = 32;
constexpr unsigned char kFreshByte = 0xff;  // a NaN in every float

enum class State { kReady, kAtBarrier, kInWarp, kEnded };

// A lane may be one exchange ahead of the others of its warp, hence two sets of values.
struct Warp {
  std::vector<unsigned> ready;  // threads
  unsigned arrived = 0;
  unsigned mask = 0;
  uint64_t values[2][kWarp] = {};
};

struct Thread {
  std::unique_ptr<Fibre> fibre;
  State state = State::kEnded;
  int exchanges = 0;
};

class BlockRunner {
 public:
  std::string Run(dim3 block, size_t shared_size, const std::function<void()>& body,
                  std::mt19937_64& random) {
    num_threads_ = block.x * block.y * block.z;
    std::memset(cuda::shared_bytes, kFreshByte, shared_size + kSharedGuard);
    warps_.assign((num_threads_ + kWarp - 1) / kWarp, Warp());
    while (threads_.size() < num_threads_) threads_.push_back({std::make_unique<Fibre>()});
    order_.resize(warps_.size());
    std::iota(order_.begin(), order_.end(), 0u);
    at_barrier_ = 0;
    running_ = num_threads_;
    ChooseOrder(random);
    for (unsigned t = 0; t < num_threads_; ++t) {
      threads_[t].fibre->Start(&body);
      threads_[t].exchanges = 0;
      MakeReady(t);
    }
    while (running_ > 0) {
      Warp* warp = NextWarp(random);
      if (warp == nullptr) return WhoWaits();
      std::swap(warp->ready[random() % warp->ready.size()], warp->ready.back());
      const unsigned t = warp->ready.back();
      warp->ready.pop_back();
      RunThread(t, block);
      // A thread that has ended holds nobody up, as on the hardware.
      if (running_ > 0 && at_barrier_ == running_) {
        ReleaseBarrier();
        ChooseOrder(random);
      }
    }
    const unsigned char* guard = cuda::shared_bytes + shared_size;
    const bool clean = std::all_of(guard, guard + kSharedGuard,
                                   [](unsigned char byte) { return byte == kFreshByte; });
    return clean ? "" : "shared memory was written past the bytes asked for";
  }

  void WaitAtBarrier() {
    Thread& self = threads_[current_];
    self.state = State::kAtBarrier;
    ++at_barrier_;
    self.fibre->Suspend();
  }

  uint64_t Exchange(unsigned mask, uint64_t bits, int distance) {
    const unsigned lane = current_ % kWarp;
    Warp& warp = warps_[current_ / kWarp];
    Thread& self = threads_[current_];
    uint64_t* values = warp.values[self.exchanges++ % 2];
    values[lane] = bits;
    warp.arrived |= 1u << lane;
    warp.mask = mask & LanesOf(current_ / kWarp);
    if (warp.arrived == warp.mask) {
      const unsigned first = current_ / kWarp * kWarp;
      warp.arrived = 0;
      for (unsigned l = 0; l < kWarp; ++l) {
        if (l != lane && (warp.mask >> l & 1) != 0) MakeReady(first + l);
      }
    } else {
      self.state = State::kInWarp;
      self.fibre->Suspend();
    }
    return values[(lane ^ static_cast<unsigned>(distance)) % kWarp];
  }

 private:
  unsigned LanesOf(unsigned warp) const {
    const unsigned lanes = std::min(kWarp, num_threads_ - warp * kWarp);
    return lanes == kWarp ? ~0u : (1u << lanes) - 1;
  }

  void MakeReady(unsigned t) {
    threads_[t].state = State::kReady;
    warps_[t / kWarp].ready.push_back(t);
  }

  // Up to the next barrier: all warps side by side, or each as far as it gets before the next one.
  void ChooseOrder(std::mt19937_64& random) {
    side_by_side_ = random() % 2 == 0;
    std::shuffle(order_.begin(), order_.end(), random);
  }

  // One that has a thread to run; null when there is none.
  Warp* NextWarp(std::mt19937_64& random) {
    const size_t first = side_by_side_ ? random() % order_.size() : 0;
    for (size_t i = 0; i < order_.size(); ++i) {
      Warp& warp = warps_[order_[(first + i) % order_.size()]];
      if (!warp.ready.empty()) return &warp;
    }
    return nullptr;
  }

  void RunThread(unsigned t, dim3 block) {
    current_ = t;
    threadIdx = {t % block.x, t / block.x % block.y, t / block.x / block.y};
    if (threads_[t].fibre->Resume()) {
      threads_[t].state = State::kEnded;
      --running_;
    }
  }

  void ReleaseBarrier() {
    at_barrier_ = 0;
    for (unsigned t = 0; t < num_threads_; ++t) {
      if (threads_[t].state == State::kAtBarrier) MakeReady(t);
    }
  }

  std::string WhoWaits() {
    const auto count = [&](State state) {
      return std::to_string(std::count_if(threads_.begin(), threads_.begin() + num_threads_,
                                          [&](const Thread& t) { return t.state == state; }));
    };
    // Their stacks are abandoned; Start makes new ones of them.
    return count(State::kAtBarrier) + " threads of a block wait at a barrier, " +
           count(State::kInWarp) + " for their warp, " + count(State::kEnded) + " have ended";
  }

  unsigned num_threads_ = 0, running_ = 0, at_barrier_ = 0, current_ = 0;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<unsigned> order_;  // of the warps
  bool side_by_side_ = true;
};

BlockRunner& Runner() {
  static BlockRunner& runner = *new BlockRunner;
  return runner;
}

}  // namespace

std::string RunGrid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread,
                    std::mt19937_64& random) {
  std::vector<unsigned> order(grid.x * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), random);
  gridDim = grid;
  blockDim = block;
  for (const unsigned b : order) {
    blockIdx = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
    const std::string wrong = Runner().Run(block, shared_bytes, thread, random);
    if (!wrong.empty()) return wrong;
  }
  return "";
}

uint64_t ExchangeInWarp(unsigned mask, uint64_t bits, int distance) {
  return Runner().Exchange(mask, bits, distance);
}

}  // namespace lwq::cuda_host

void __syncthreads() { lwq::cuda_host::Runner().WaitAtBarrier(); }
void __syncwarp(unsigned mask) { lwq::cuda_host::ExchangeInWarp(mask, 0, 0); }

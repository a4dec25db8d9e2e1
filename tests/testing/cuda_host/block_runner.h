// Runs the blocks of a grid on one host thread: each device thread is a fibre that runs until it
// waits for the others of its block or warp. Which goes next is drawn from a seed, so that what
// no barrier orders happens in any order.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <random>
#include <string>

namespace lwq::cuda_host {

// The most dynamic shared memory that a block may have.
inline constexpr size_t kSharedBytes = 99 * 1024;
// Bytes behind it that must stay as they are.
inline constexpr size_t kSharedGuard = 4096;

// "" or what was wrong: threads that wait for others that never come, shared memory past
// `shared_bytes`.
std::string RunGrid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread,
                    std::mt19937_64& random);

}  // namespace lwq::cuda_host

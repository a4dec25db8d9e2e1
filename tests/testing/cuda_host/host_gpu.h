// A GPU on the host, for tests where there is none: CUDA sources are compiled as host C++ against
// the headers of include/, and run here.
//
// Work is delayed. What is put on a stream runs when somebody waits for a stream or an event, in an
// order drawn from a seed among what streams and events leave free; so does the order of blocks in
// a grid and of threads between two barriers. A missing event or barrier is a wrong result for some
// seeds.
//
// Memory is checked. Device memory can be touched only while the device runs: a host loop over it
// faults. It is filled with NaNs when it is handed out and lies between guards; every view that a
// kernel, a copy or a library call gets must lie in memory that is handed out at that point of the
// stream's order. Copies to and from the host take pinned memory only. What is wrong leaves the
// device with a fault, as an illegal address does on a GPU: all later calls fail with it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <string>

namespace lwq::cuda_host {

// Forgets all faults and what is queued. Nothing of the device may be in use.
void Restart(uint64_t seed);
void SetSeed(uint64_t seed);
// What the device has, 4 GiB unless set.
void SetMemory(size_t bytes);
size_t MemoryInUse();
// What went wrong first; empty when nothing did.
std::string Fault();

// --- for the fakes of the libraries ---

// Runs `work` in the stream's order. cudaErrorInvalidResourceHandle for a stream that is none.
cudaError_t Enqueue(cudaStream_t stream, std::function<void()> work);
// Inside work: the device has a fault.
void SetFault(cudaError_t error, const std::string& what);
// Inside work: as IsUsable, for a matrix of `cols` columns of `rows` elements, column j at
// data + j * stride.
bool MatrixIsUsable(const char* what, const void* data, int64_t rows, int64_t cols, int64_t stride,
                    size_t element_bytes);

}  // namespace lwq::cuda_host

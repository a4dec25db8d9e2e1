#include "tests/testing/cuda_host/host_gpu.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <vector>

#include "tests/testing/cuda_host/arena.h"
#include "tests/testing/cuda_host/block_runner.h"

namespace lwq::cuda_host {

// How often an event was recorded, and how many of those recordings the streams have reached.
struct EventState {
  uint64_t recorded = 0;
  uint64_t reached = 0;
};

// One entry of a stream: something to do, or an event's recording to wait for.
struct Entry {
  std::function<void()> work;
  std::shared_ptr<EventState> waits_for;
  uint64_t recording = 0;
};

}  // namespace lwq::cuda_host

struct CUstream_st {
  std::deque<lwq::cuda_host::Entry> entries;
};
struct CUevent_st {
  std::shared_ptr<lwq::cuda_host::EventState> state;
};
struct CUmemPoolHandle_st {};

namespace lwq::cuda_host {
namespace {

class Gpu {
 public:
  static Gpu& Get() {
    static Gpu& gpu = *new Gpu;
    return gpu;
  }

  std::recursive_mutex& mutex() { return mutex_; }
  Arena& arena() { return arena_; }
  std::mt19937_64& random() { return random_; }
  cudaError_t error() const { return error_; }
  const std::string& fault() const { return fault_; }

  void Restart(uint64_t seed) {
    error_ = cudaSuccess;
    fault_.clear();
    random_.seed(seed);
    for (CUstream_st* stream : streams_) stream->entries.clear();
  }

  void SetFault(cudaError_t error, const std::string& what) {
    if (error_ != cudaSuccess) return;
    error_ = error;
    fault_ = what;
  }

  CUstream_st* NewStream() {
    streams_.push_back(new CUstream_st);
    return streams_.back();
  }
  bool IsStream(CUstream_st* stream) const {
    return std::find(streams_.begin(), streams_.end(), stream) != streams_.end();
  }
  void Destroy(CUstream_st* stream) {
    streams_.erase(std::find(streams_.begin(), streams_.end(), stream));
    delete stream;
  }

  cudaError_t Append(cudaStream_t stream, Entry entry) {
    if (error_ != cudaSuccess) return error_;
    if (!IsStream(stream)) {
      SetFault(cudaErrorInvalidResourceHandle,
               "work for the default stream, or for one that is gone");
      return error_;
    }
    stream->entries.push_back(std::move(entry));
    return cudaSuccess;
  }

  // Runs entries, in an order that the streams leave free, until `done`.
  cudaError_t RunUntil(const std::function<bool()>& done) {
    if (error_ == cudaSuccess && !done()) {
      arena_.Open();
      while (error_ == cudaSuccess && !done()) RunOne();
      arena_.Close();
    }
    if (error_ != cudaSuccess) {
      for (CUstream_st* stream : streams_) stream->entries.clear();
    }
    return error_;
  }
  cudaError_t RunAll() {
    return RunUntil([&] {
      return std::all_of(streams_.begin(), streams_.end(),
                         [](const CUstream_st* stream) { return stream->entries.empty(); });
    });
  }

  std::set<const void*> kernels_with_more_shared;
  std::map<const char*, size_t> pinned;

 private:
  static bool IsFree(const CUstream_st* stream) {
    if (stream->entries.empty()) return false;
    const Entry& head = stream->entries.front();
    return head.waits_for == nullptr || head.waits_for->reached >= head.recording;
  }

  void RunOne() {
    std::vector<CUstream_st*> free;
    std::copy_if(streams_.begin(), streams_.end(), std::back_inserter(free), IsFree);
    if (free.empty()) return SetFault(cudaErrorLaunchFailure, "all streams wait for each other");
    CUstream_st* stream = free[random_() % free.size()];
    const Entry entry = std::move(stream->entries.front());
    stream->entries.pop_front();
    if (entry.work != nullptr) entry.work();
    const std::string broken = arena_.BrokenGuard();
    if (!broken.empty()) SetFault(cudaErrorIllegalAddress, broken);
  }

  std::recursive_mutex mutex_;
  Arena arena_;
  std::mt19937_64 random_{1};
  cudaError_t error_ = cudaSuccess;
  std::string fault_;
  std::vector<CUstream_st*> streams_;
};

using Lock = std::lock_guard<std::recursive_mutex>;

bool IsPinned(const void* data, size_t bytes) {
  const auto& pinned = Gpu::Get().pinned;
  const char* first = static_cast<const char*>(data);
  auto block = pinned.upper_bound(first);
  if (block == pinned.begin()) return false;
  --block;
  return first + bytes <= block->first + block->second;
}

// One side of a copy: rows of `width` bytes, `pitch` apart.
bool SideIsUsable(const char* what, const void* data, size_t pitch, size_t width, size_t height,
                  bool on_host) {
  const size_t bytes = (height - 1) * pitch + width;
  if (!on_host) {
    return MatrixIsUsable(what, data, static_cast<int64_t>(width), static_cast<int64_t>(height),
                          static_cast<int64_t>(pitch), 1);
  }
  if (IsPinned(data, bytes)) return true;
  SetFault(cudaErrorInvalidValue, std::string(what) + " is not pinned host memory");
  return false;
}

void CopyRows(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
              size_t height, cudaMemcpyKind kind) {
  if (!SideIsUsable("a copy's destination", to, to_pitch, width, height,
                    kind == cudaMemcpyDeviceToHost) ||
      !SideIsUsable("a copy's source", from, from_pitch, width, height,
                    kind == cudaMemcpyHostToDevice)) {
    return;
  }
  for (size_t r = 0; r < height; ++r) {
    std::memcpy(static_cast<char*>(to) + r * to_pitch,
                static_cast<const char*>(from) + r * from_pitch, width);
  }
}

}  // namespace

void Restart(uint64_t seed) {
  const Lock lock(Gpu::Get().mutex());
  Gpu::Get().Restart(seed);
}
void SetSeed(uint64_t seed) {
  const Lock lock(Gpu::Get().mutex());
  Gpu::Get().random().seed(seed);
}
void SetMemory(size_t bytes) { Gpu::Get().arena().set_capacity(bytes); }
size_t MemoryInUse() { return Gpu::Get().arena().bytes_in_use(); }
std::string Fault() { return Gpu::Get().fault(); }
void SetFault(cudaError_t error, const std::string& what) { Gpu::Get().SetFault(error, what); }

cudaError_t Enqueue(cudaStream_t stream, std::function<void()> work) {
  const Lock lock(Gpu::Get().mutex());
  return Gpu::Get().Append(stream, {std::move(work), nullptr, 0});
}

bool MatrixIsUsable(const char* what, const void* data, int64_t rows, int64_t cols, int64_t stride,
                    size_t element_bytes) {
  if (rows == 0 || cols == 0) return true;
  const std::string shape = std::string(what) + " [" + std::to_string(rows) + ", " +
                            std::to_string(cols) + "], stride " + std::to_string(stride) + ", ";
  if (cols > 1 && stride < rows) {
    SetFault(cudaErrorInvalidValue, shape + "has columns that overlap");
    return false;
  }
  if (reinterpret_cast<uintptr_t>(data) % element_bytes != 0) {
    SetFault(cudaErrorInvalidValue, shape + "is not aligned");
    return false;
  }
  const std::string objection = Gpu::Get().arena().Objection(
      data, static_cast<size_t>((cols - 1) * stride + rows) * element_bytes);
  if (objection.empty()) return true;
  SetFault(cudaErrorIllegalAddress, shape + objection);
  return false;
}

bool IsUsable(int index, const void* data, size_t bytes, size_t alignment) {
  std::string objection = Gpu::Get().arena().Objection(data, bytes);
  if (reinterpret_cast<uintptr_t>(data) % alignment != 0) objection = "is not aligned";
  if (objection.empty()) return true;
  SetFault(cudaErrorIllegalAddress,
           "argument " + std::to_string(index) + " of a kernel " + objection);
  return false;
}

cudaError_t EnqueueKernel(const cudaLaunchConfig_t& config, const void* kernel,
                          std::function<bool()> arguments_are_good, std::function<void()> thread) {
  Gpu& gpu = Gpu::Get();
  const Lock lock(gpu.mutex());
  const dim3 block = config.blockDim, grid = config.gridDim;
  const bool more = gpu.kernels_with_more_shared.count(kernel) != 0;
  if (block.x * block.y * block.z == 0 || block.x * block.y * block.z > 1024 || block.z > 64 ||
      grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 2147483647u || grid.y > 65535 ||
      grid.z > 65535 || config.dynamicSmemBytes > (more ? kSharedBytes : 48 * 1024)) {
    return cudaErrorInvalidConfiguration;
  }
  const size_t shared_bytes = config.dynamicSmemBytes;
  return Enqueue(config.stream, [grid, block, shared_bytes, check = std::move(arguments_are_good),
                                 run = std::move(thread)] {
    if (!check()) return;
    const std::string wrong = RunGrid(grid, block, shared_bytes, run, Gpu::Get().random());
    if (!wrong.empty()) SetFault(cudaErrorLaunchFailure, wrong);
  });
}

}  // namespace lwq::cuda_host

using lwq::cuda_host::Arena;
using lwq::cuda_host::Gpu;
using lwq::cuda_host::Lock;

const char* cudaGetErrorString(cudaError_t error) {
  Gpu& gpu = Gpu::Get();
  if (error == gpu.error() && error != cudaSuccess) return gpu.fault().c_str();
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
  }
  return "unrecognized error code";
}

cudaError_t cudaGetLastError() { return Gpu::Get().error(); }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? Gpu::Get().error() : cudaErrorInvalidDevice;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return cudaErrorInvalidDevice;
  *properties = {"host", 9, 0, 1, Gpu::Get().arena().capacity()};
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  const Arena& arena = Gpu::Get().arena();
  *total_bytes = arena.capacity();
  *free_bytes = arena.capacity() - arena.bytes_in_use();
  return Gpu::Get().error();
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const Lock lock(Gpu::Get().mutex());
  *stream = Gpu::Get().NewStream();
  return Gpu::Get().error();
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Gpu& gpu = Gpu::Get();
  const Lock lock(gpu.mutex());
  if (!gpu.IsStream(stream)) return cudaErrorInvalidResourceHandle;
  return gpu.RunUntil([&] { return stream->entries.empty(); });
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Gpu& gpu = Gpu::Get();
  const Lock lock(gpu.mutex());
  const cudaError_t error = cudaStreamSynchronize(stream);
  if (gpu.IsStream(stream)) gpu.Destroy(stream);
  return error;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st{std::make_shared<lwq::cuda_host::EventState>()};
  return Gpu::Get().error();
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return Gpu::Get().error();
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(Gpu::Get().mutex());
  const auto state = event->state;
  const uint64_t recording = ++state->recorded;
  return Gpu::Get().Append(
      stream, {[=] { state->reached = std::max(state->reached, recording); }, nullptr, 0});
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(Gpu::Get().mutex());
  return Gpu::Get().Append(stream, {nullptr, event->state, event->state->recorded});
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  Gpu& gpu = Gpu::Get();
  const Lock lock(gpu.mutex());
  const uint64_t recording = event->state->recorded;
  return gpu.RunUntil([&] { return event->state->reached >= recording; });
}

cudaError_t cudaMalloc(void** data, size_t bytes) {
  Gpu& gpu = Gpu::Get();
  const Lock lock(gpu.mutex());
  *data = gpu.arena().Reserve(bytes);
  if (*data == nullptr) return cudaErrorMemoryAllocation;
  gpu.arena().Open();
  gpu.arena().Begin(*data);
  gpu.arena().Close();
  return gpu.error();
}
cudaError_t cudaFree(void* data) {
  Gpu& gpu = Gpu::Get();
  const Lock lock(gpu.mutex());
  gpu.RunAll();
  gpu.arena().Open();
  const std::string wrong = gpu.arena().End(data);
  gpu.arena().Close();
  return wrong.empty() ? gpu.error() : cudaErrorInvalidValue;
}
cudaError_t cudaMallocHost(void** data, size_t bytes) {
  const Lock lock(Gpu::Get().mutex());
  char* memory = static_cast<char*>(std::malloc(std::max<size_t>(bytes, 1)));
  if (memory == nullptr) return cudaErrorMemoryAllocation;
  std::memset(memory, 0xff, bytes);
  Gpu::Get().pinned[memory] = bytes;
  *data = memory;
  return Gpu::Get().error();
}
cudaError_t cudaFreeHost(void* data) {
  Gpu& gpu = Gpu::Get();
  const Lock lock(gpu.mutex());
  gpu.RunAll();
  gpu.pinned.erase(static_cast<char*>(data));
  std::free(data);
  return gpu.error();
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  if (properties->location.id != 0) return cudaErrorInvalidDevice;
  *pool = new CUmemPoolHandle_st;
  return Gpu::Get().error();
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  delete pool;
  return Gpu::Get().error();
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return Gpu::Get().error();
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return Gpu::Get().error(); }
cudaError_t cudaMallocFromPoolAsync(void** data, size_t bytes, cudaMemPool_t, cudaStream_t stream) {
  Gpu& gpu = Gpu::Get();
  const Lock lock(gpu.mutex());
  void* const reserved = gpu.arena().Reserve(bytes);
  if (reserved == nullptr) return cudaErrorMemoryAllocation;
  *data = reserved;
  return gpu.Append(stream, {[reserved] { Gpu::Get().arena().Begin(reserved); }, nullptr, 0});
}
cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  Gpu& gpu = Gpu::Get();
  const Lock lock(gpu.mutex());
  return gpu.Append(stream, {[data] {
                               const std::string wrong = Gpu::Get().arena().End(data);
                               if (!wrong.empty())
                                 Gpu::Get().SetFault(cudaErrorInvalidValue, wrong);
                             },
                             nullptr, 0});
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  if (width > to_pitch || width > from_pitch) return cudaErrorInvalidValue;
  if (width == 0 || height == 0) return Gpu::Get().error();
  return lwq::cuda_host::Enqueue(stream, [=] {
    lwq::cuda_host::CopyRows(to, to_pitch, from, from_pitch, width, height, kind);
  });
}
cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream) {
  return cudaMemset2DAsync(data, bytes, value, bytes, 1, stream);
}
cudaError_t cudaMemset2DAsync(void* data, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t stream) {
  if (width > pitch) return cudaErrorInvalidValue;
  if (width == 0 || height == 0) return Gpu::Get().error();
  return lwq::cuda_host::Enqueue(stream, [=] {
    if (!lwq::cuda_host::SideIsUsable("memory to be set", data, pitch, width, height, false))
      return;
    for (size_t r = 0; r < height; ++r) {
      std::memset(static_cast<char*>(data) + r * pitch, value, width);
    }
  });
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  const Lock lock(Gpu::Get().mutex());
  if (value < 0 || static_cast<size_t>(value) > lwq::cuda_host::kSharedBytes) {
    return cudaErrorInvalidValue;
  }
  Gpu::Get().kernels_with_more_shared.insert(kernel);
  return Gpu::Get().error();
}

// The GPU on the host catches what it is there to catch: each fault is planted here, beside the
// right code, which runs clean for every seed.
#include "tests/testing/cuda_host/host_gpu.h"

#include <cublas_v2.h>
#include <cusolverDn.h>

#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lwq::cuda {

// As the kernels have it.
__device__ float* SharedFloats() {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  return reinterpret_cast<float*>(shared_bytes);
}

}  // namespace lwq::cuda

namespace lwq::cuda_host {
namespace {

using ::testing::HasSubstr;

constexpr int kSeeds = 8;
constexpr int kThreads = 64;

struct Matrix {
  float* data;
  int64_t rows, cols, stride;
};

// out[i] = in[kThreads - 1 - i], by way of shared memory.
template <bool with_barrier>
__global__ void ReverseKernel(const float* in, float* out) {
  float* shared = cuda::SharedFloats();
  shared[threadIdx.x] = in[threadIdx.x];
  if (with_barrier) __syncthreads();
  out[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}

// Each lane takes its neighbour's number through shared memory, twice.
template <bool with_barrier>
__global__ void RotateInWarpKernel(float* x) {
  float* shared = cuda::SharedFloats();
  float value = x[threadIdx.x];
  for (int turn = 0; turn < 2; ++turn) {
    shared[threadIdx.x] = value;
    __syncwarp();
    value = shared[(threadIdx.x + 1) % 32];
    if (with_barrier) __syncwarp();  // all have read
  }
  x[threadIdx.x] = value;
}

__global__ void SetKernel(Matrix m, float value) {
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = threadIdx.x; c < m.cols; c += blockDim.x) m.data[r * m.stride + c] = value;
  }
}
__global__ void WritePastKernel(float* data, int64_t at) { data[at] = 1; }
__global__ void WriteSharedKernel(int at) { cuda::SharedFloats()[at] = 1; }
__global__ void HalfAtBarrierKernel() {
  if (threadIdx.x % 2 == 0) __syncthreads();
  if (threadIdx.x % 2 == 1) __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}
__global__ void LaneIsMissingKernel() {
  if (threadIdx.x != 5) __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}
__global__ void SumOfLanesKernel(float* x) {
  float value = x[threadIdx.x];
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  }
  x[threadIdx.x] = value;
}

class HostGpuTest : public ::testing::Test {
 protected:
  HostGpuTest() {
    Restart(1);
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
    EXPECT_EQ(cudaStreamCreateWithFlags(&other_, cudaStreamNonBlocking), cudaSuccess);
    EXPECT_EQ(cudaMallocHost(&pinned_, kBytes), cudaSuccess);
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&device_), kBytes), cudaSuccess);
    const cudaMemPoolProps properties{cudaMemAllocationTypePinned, {cudaMemLocationTypeDevice, 0}};
    EXPECT_EQ(cudaMemPoolCreate(&pool_, &properties), cudaSuccess);
  }
  ~HostGpuTest() override {
    Restart(1);
    cudaFree(device_);
    cudaFreeHost(pinned_);
    cudaMemPoolDestroy(pool_);
    cudaStreamDestroy(other_);
    cudaStreamDestroy(stream_);
  }

  static constexpr size_t kBytes = 1024;
  float* pinned() { return static_cast<float*>(pinned_); }

  template <typename... Parameters, typename... Arguments>
  cudaError_t Launch(void (*kernel)(Parameters...), unsigned threads, Arguments... arguments) {
    cudaLaunchConfig_t config{dim3(1), dim3(threads), 1024, stream_};
    return cudaLaunchKernelEx(&config, kernel, arguments...);
  }
  cudaError_t Wait() { return cudaStreamSynchronize(stream_); }
  // x on the device becomes 0, 1, 2, ...
  void Count() {
    for (int i = 0; i < kThreads; ++i) pinned()[i] = static_cast<float>(i);
    cudaMemcpyAsync(device_, pinned_, kBytes, cudaMemcpyHostToDevice, stream_);
    EXPECT_EQ(Wait(), cudaSuccess);
  }
  std::vector<float> Read(const float* from) {
    cudaMemcpyAsync(pinned_, from, kThreads * sizeof(float), cudaMemcpyDeviceToHost, stream_);
    EXPECT_EQ(Wait(), cudaSuccess) << Fault();
    return {pinned(), pinned() + kThreads};
  }

  cudaStream_t stream_ = nullptr, other_ = nullptr;
  cudaMemPool_t pool_ = nullptr;
  void* pinned_ = nullptr;
  float* device_ = nullptr;
};

// How many seeds give the right result.
template <typename Run>
int SeedsThatAreRight(const Run& run) {
  int right = 0;
  for (int seed = 1; seed <= kSeeds; ++seed) {
    SetSeed(static_cast<uint64_t>(seed));
    right += run();
  }
  return right;
}

TEST_F(HostGpuTest, AMissingBarrierShows) {
  const auto reverses = [&](auto kernel) {
    return SeedsThatAreRight([&] {
      Count();
      Launch(kernel, kThreads, device_, device_ + kThreads);
      const std::vector<float> found = Read(device_ + kThreads);
      bool right = true;
      for (int i = 0; i < kThreads; ++i) right &= found[i] == static_cast<float>(kThreads - 1 - i);
      return right;
    });
  };
  EXPECT_EQ(reverses(&ReverseKernel<true>), kSeeds);
  EXPECT_EQ(reverses(&ReverseKernel<false>), 0);
}

TEST_F(HostGpuTest, AMissingBarrierOfAWarpShows) {
  const auto rotates = [&](auto kernel) {
    return SeedsThatAreRight([&] {
      Count();
      Launch(kernel, 32, device_);
      const std::vector<float> found = Read(device_);
      bool right = true;
      for (int i = 0; i < 32; ++i) right &= found[i] == static_cast<float>((i + 2) % 32);
      return right;
    });
  };
  EXPECT_EQ(rotates(&RotateInWarpKernel<true>), kSeeds);
  EXPECT_EQ(rotates(&RotateInWarpKernel<false>), 0);
}

TEST_F(HostGpuTest, LanesExchangeTheirValues) {
  Count();
  Launch(&SumOfLanesKernel, kThreads, device_);
  const std::vector<float> found = Read(device_);
  for (int i = 0; i < kThreads; ++i) EXPECT_EQ(found[i], i < 32 ? 496 : 1520) << i;
}

// A copy on one stream, its reader on another.
TEST_F(HostGpuTest, AMissingEventShows) {
  cudaEvent_t event = nullptr;
  ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
  const auto arrives = [&](bool with_event) {
    return SeedsThatAreRight([&] {
      Count();
      pinned()[0] = 77;
      cudaMemcpyAsync(device_, pinned_, sizeof(float), cudaMemcpyHostToDevice, other_);
      if (with_event) {
        cudaEventRecord(event, other_);
        cudaStreamWaitEvent(stream_, event, 0);
      }
      cudaMemcpyAsync(device_ + 1, device_, sizeof(float), cudaMemcpyDeviceToDevice, stream_);
      EXPECT_EQ(Wait(), cudaSuccess);
      cudaStreamSynchronize(other_);
      return Read(device_)[1] == 77;
    });
  };
  EXPECT_EQ(arrives(true), kSeeds);
  EXPECT_LT(arrives(false), kSeeds);
  cudaEventDestroy(event);
}

TEST_F(HostGpuTest, NothingRunsBeforeSomebodyWaits) {
  Count();
  pinned()[0] = 5;
  cudaMemcpyAsync(pinned_, device_, sizeof(float), cudaMemcpyDeviceToHost, stream_);
  EXPECT_EQ(pinned()[0], 5);
  EXPECT_EQ(Wait(), cudaSuccess);
  EXPECT_EQ(pinned()[0], 0);
}

TEST_F(HostGpuTest, AViewThatIsTooLongIsAFault) {
  EXPECT_EQ(Launch(&SetKernel, 32, Matrix{device_, 16, 16, 16}, 1.0f), cudaSuccess);
  EXPECT_EQ(Wait(), cudaSuccess);
  Launch(&SetKernel, 32, Matrix{device_, 16, 16, 17}, 1.0f);
  EXPECT_EQ(Wait(), cudaErrorIllegalAddress);
  EXPECT_THAT(Fault(), HasSubstr("argument 0"));
  EXPECT_THAT(Fault(), HasSubstr("ends 60 bytes past"));
  // As on a GPU, nothing works any more.
  EXPECT_EQ(Launch(&SetKernel, 32, Matrix{device_, 16, 16, 16}, 1.0f), cudaErrorIllegalAddress);
  EXPECT_THAT(cudaGetErrorString(cudaErrorIllegalAddress), HasSubstr("argument 0"));
}

TEST_F(HostGpuTest, WritingBesideAnAllocationIsAFault) {
  Launch(&WritePastKernel, 1, device_, int64_t{kBytes / sizeof(float)});
  EXPECT_EQ(Wait(), cudaErrorIllegalAddress);
  EXPECT_THAT(Fault(), HasSubstr("beside an allocation"));
}

TEST_F(HostGpuTest, HostMemoryInAKernelIsAFault) {
  float host[kThreads] = {};
  Launch(&SumOfLanesKernel, 32, host);
  EXPECT_EQ(Wait(), cudaErrorIllegalAddress);
  EXPECT_THAT(Fault(), HasSubstr("is not device memory"));
}

TEST_F(HostGpuTest, PageableMemoryInACopyIsAFault) {
  float host[4] = {};
  cudaMemcpyAsync(device_, host, sizeof(host), cudaMemcpyHostToDevice, stream_);
  EXPECT_EQ(Wait(), cudaErrorInvalidValue);
  EXPECT_THAT(Fault(), HasSubstr("not pinned"));
}

TEST_F(HostGpuTest, ADeathOfTheHostThatReadsDeviceMemory) {
  EXPECT_DEATH(std::printf("%f", static_cast<double>(*device_)), "");
}

TEST_F(HostGpuTest, MemoryIsUsedInItsOrderOnly) {
  // Another stream knows nothing of the allocation: for some seeds it comes too early.
  bool faulted = false;
  for (uint64_t seed = 1; seed <= kSeeds && !faulted; ++seed) {
    SetSeed(seed);
    void* early = nullptr;
    ASSERT_EQ(cudaMallocFromPoolAsync(&early, 256, pool_, stream_), cudaSuccess);
    cudaMemsetAsync(early, 0, 256, other_);
    faulted = cudaStreamSynchronize(other_) != cudaSuccess;
  }
  EXPECT_TRUE(faulted);
  EXPECT_THAT(Fault(), HasSubstr("not allocated yet"));
  Restart(1);
  void* freed = nullptr;
  ASSERT_EQ(cudaMallocFromPoolAsync(&freed, 256, pool_, stream_), cudaSuccess);
  ASSERT_EQ(cudaFreeAsync(freed, stream_), cudaSuccess);
  cudaMemsetAsync(freed, 0, 256, stream_);
  EXPECT_EQ(Wait(), cudaErrorIllegalAddress);
  EXPECT_THAT(Fault(), HasSubstr("not allocated"));
}

TEST_F(HostGpuTest, FreshMemoryIsNotANumber) {
  void* fresh = nullptr;
  ASSERT_EQ(cudaMallocFromPoolAsync(&fresh, kThreads * sizeof(float), pool_, stream_), cudaSuccess);
  for (const float value : Read(static_cast<float*>(fresh))) EXPECT_TRUE(std::isnan(value));
  EXPECT_EQ(cudaFreeAsync(fresh, stream_), cudaSuccess);
  EXPECT_EQ(Wait(), cudaSuccess);
}

TEST_F(HostGpuTest, MemoryRunsOut) {
  SetMemory(MemoryInUse() + 4096);
  void* data = nullptr;
  EXPECT_EQ(cudaMallocFromPoolAsync(&data, 8192, pool_, stream_), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMallocFromPoolAsync(&data, 4096, pool_, stream_), cudaSuccess);
  EXPECT_EQ(cudaFreeAsync(data, stream_), cudaSuccess);
  EXPECT_EQ(Wait(), cudaSuccess);
  SetMemory(size_t{4} << 30);
}

TEST_F(HostGpuTest, ThreadsThatWaitForeverAreAFault) {
  Launch(&HalfAtBarrierKernel, 32);
  EXPECT_EQ(Wait(), cudaErrorLaunchFailure);
  EXPECT_THAT(Fault(), HasSubstr("16 threads of a block wait at a barrier"));
  Restart(1);
  Launch(&LaneIsMissingKernel, 32);
  EXPECT_EQ(Wait(), cudaErrorLaunchFailure);
  EXPECT_THAT(Fault(), HasSubstr("31 for their warp, 1 have ended"));
}

TEST_F(HostGpuTest, SharedMemoryEndsWhereTheLaunchSays) {
  Launch(&WriteSharedKernel, 1, 255);
  EXPECT_EQ(Wait(), cudaSuccess);
  Launch(&WriteSharedKernel, 1, 256);
  EXPECT_EQ(Wait(), cudaErrorLaunchFailure);
  EXPECT_THAT(Fault(), HasSubstr("shared memory"));
  Restart(1);
  cudaLaunchConfig_t config{dim3(1), dim3(1), 49 * 1024, stream_};
  EXPECT_EQ(cudaLaunchKernelEx(&config, &WriteSharedKernel, 0), cudaErrorInvalidConfiguration)
      << "more than 48 KiB need an attribute";
}

TEST_F(HostGpuTest, WorkNeedsAStream) {
  cudaLaunchConfig_t config{dim3(1), dim3(1), 0, nullptr};
  EXPECT_NE(cudaLaunchKernelEx(&config, &WriteSharedKernel, 0), cudaSuccess);
  EXPECT_THAT(Fault(), HasSubstr("default stream"));
}

TEST_F(HostGpuTest, LibrariesCheckTheirMatrices) {
  cublasHandle_t blas = nullptr;
  cublasCreate(&blas);
  cublasSetStream(blas, stream_);
  const float one = 1;
  const auto gram = [&](int64_t n, int64_t stride) {
    return cublasSsyrk_64(blas, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_N, n, 1, &one, device_, stride,
                          &one, device_, stride);
  };
  EXPECT_EQ(gram(16, 16), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(Wait(), cudaSuccess);
  EXPECT_EQ(gram(16, 15), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(gram(17, 17), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(Wait(), cudaErrorIllegalAddress);
  Restart(1);
  cusolverDnHandle_t solver = nullptr;
  cusolverDnCreate(&solver);
  cusolverDnSetStream(solver, stream_);
  int floats = 0;
  cusolverDnSpotrf_bufferSize(solver, CUBLAS_FILL_MODE_UPPER, 4, device_, 4, &floats);
  EXPECT_EQ(cusolverDnSpotrf(solver, CUBLAS_FILL_MODE_UPPER, 4, device_, 4, device_ + 32,
                             floats - 1, reinterpret_cast<int*>(device_ + 16)),
            CUSOLVER_STATUS_INVALID_VALUE);
  cusolverDnDestroy(solver);
  cublasDestroy(blas);
}

}  // namespace
}  // namespace lwq::cuda_host

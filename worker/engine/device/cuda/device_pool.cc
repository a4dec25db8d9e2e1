#include "worker/engine/device/cuda/device_pool.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/device/cuda/cuda_status.h"

namespace lwq::cuda {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 40;
constexpr int64_t kGranule = 512;  // sizes are rounded up to it

}  // namespace

class DevicePool::Block : public DeviceMemory {
 public:
  Block(std::shared_ptr<DevicePool> pool, void* data, int64_t bytes)
      : pool_(std::move(pool)), data_(static_cast<uint8_t*>(data)), bytes_(bytes) {}
  // In the stream's order: what is under way still uses it. A fault shows at the next operation.
  ~Block() override {
    (void)cudaFreeAsync(data_, pool_->stream());
    pool_->used_bytes_ -= bytes_;
  }
  DevicePtr<uint8_t> data() const override { return DevicePtr<uint8_t>(data_); }

 private:
  const std::shared_ptr<DevicePool> pool_;
  uint8_t* const data_;
  const int64_t bytes_;
};

absl::StatusOr<std::shared_ptr<DevicePool>> DevicePool::Create(int ordinal, int64_t limit_bytes) {
  LWQ_RETURN_IF_ERROR(StatusOf(cudaSetDevice(ordinal), absl::StrCat("opening device ", ordinal)));
  if (limit_bytes == 0) {
    size_t free_bytes = 0, total_bytes = 0;
    LWQ_RETURN_IF_ERROR(
        StatusOf(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for free memory"));
    limit_bytes = static_cast<int64_t>(free_bytes / 10 * 9);
  }
  std::shared_ptr<DevicePool> pool(new DevicePool(ordinal, limit_bytes));
  LWQ_RETURN_IF_ERROR(pool->Open());
  return pool;
}

absl::Status DevicePool::Open() {
  LWQ_RETURN_IF_ERROR(StatusOf(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                               "creating the compute stream"));
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = ordinal_;
  LWQ_RETURN_IF_ERROR(StatusOf(cudaMemPoolCreate(&pool_, &properties), "creating a memory pool"));
  // What is freed stays with the pool: giving it back to the driver waits for the device.
  uint64_t threshold = UINT64_MAX;
  return StatusOf(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &threshold),
                  "setting up the memory pool");
}

DevicePool::~DevicePool() {
  if (stream_ != nullptr) (void)cudaStreamSynchronize(stream_);
  if (pool_ != nullptr) (void)cudaMemPoolDestroy(pool_);
  if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
}

// A pool in pieces may have enough, but nothing as long: it then starts afresh.
cudaError_t DevicePool::Take(void** data, int64_t bytes) {
  const cudaError_t error =
      cudaMallocFromPoolAsync(data, static_cast<size_t>(bytes), pool_, stream());
  if (error != cudaErrorMemoryAllocation) return error;
  (void)cudaGetLastError();
  Trim();
  return cudaMallocFromPoolAsync(data, static_cast<size_t>(bytes), pool_, stream_);
}

void DevicePool::Trim() {
  (void)cudaStreamSynchronize(stream());
  (void)cudaMemPoolTrimTo(pool_, 0);
}

absl::StatusOr<std::unique_ptr<DeviceMemory>> DevicePool::Allocate(int64_t rows, int64_t cols,
                                                                   int64_t element_bytes) {
  if (rows < 0 || cols < 0 || (cols > 0 && rows > kMaxElements / cols)) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot make a matrix of ", rows, " x ", cols, " elements"));
  }
  const int64_t bytes =
      std::max<int64_t>(1, (rows * cols * element_bytes + kGranule - 1) / kGranule) * kGranule;
  const auto no_memory = [&](absl::string_view why) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory on the device for a matrix of ", rows, " x ", cols, " elements of ",
                     element_bytes, " bytes: ", bytes, " bytes asked for, ", used_bytes_.load(),
                     " of at most ", limit_bytes_, " in use", why));
  };
  if (bytes > limit_bytes_ - used_bytes_) return no_memory("");
  void* data = nullptr;
  const cudaError_t error = Take(&data, bytes);
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();  // forgotten: the device goes on
    return no_memory("; another process may hold the rest");
  }
  LWQ_RETURN_IF_ERROR(StatusOf(error, "allocating memory"));
  used_bytes_ += bytes;
  return std::make_unique<Block>(shared_from_this(), data, bytes);
}

}  // namespace lwq::cuda

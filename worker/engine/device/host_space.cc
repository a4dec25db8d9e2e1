#include "worker/engine/device/host_space.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "worker/engine/tensor/host_memory.h"

namespace lwq {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 40;

class HostBlock : public DeviceMemory {
 public:
  HostBlock(std::unique_ptr<uint8_t[], HostDeleter> bytes, uintptr_t distance)
      : bytes_(std::move(bytes)), distance_(distance) {}
  DevicePtr<uint8_t> data() const override {
    return DevicePtr<uint8_t>(
        reinterpret_cast<uint8_t*>(reinterpret_cast<uintptr_t>(bytes_.get()) + distance_));
  }

 private:
  const std::unique_ptr<uint8_t[], HostDeleter> bytes_;
  const uintptr_t distance_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceMemory>> HostSpace::Allocate(int64_t rows, int64_t cols,
                                                                  int64_t element_bytes) const {
  if (rows < 0 || cols < 0 || (cols > 0 && rows > kMaxElements / cols)) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot make a matrix of ", rows, " x ", cols, " elements"));
  }
  if (!HostAllows(static_cast<size_t>(rows * cols * element_bytes))) {
    return Failure(reasons::kHostOom,
                   absl::StrCat("a matrix of ", rows, " x ", cols, " elements of ", element_bytes,
                                " bytes is more than the memory ceiling leaves"));
  }
  std::unique_ptr<uint8_t[], HostDeleter> bytes(
      static_cast<uint8_t*>(AllocateHost(static_cast<size_t>(rows * cols * element_bytes))));
  if (bytes == nullptr) {
    return Failure(reasons::kHostOom, absl::StrCat("no memory for a matrix of ", rows, " x ", cols,
                                                   " elements of ", element_bytes, " bytes"));
  }
  return std::make_unique<HostBlock>(std::move(bytes), distance_);
}

HostGptqColumns::HostGptqColumns(const HostSpace& space, const GptqColumns& block)
    : w(space.Host(block.w)),
      u(space.Host(block.u)),
      grid(block.grid),
      scales(space.Host(block.scales)),
      zeros(space.Host(block.zeros)),
      columns(space.Host(block.columns)),
      in_features(block.in_features),
      codes(space.Host(block.codes)),
      error(space.Host(block.error)),
      loss(space.Host(block.loss)) {}

HostRefinementBlock::HostRefinementBlock(const HostSpace& space, const RefinementBlock& block)
    : residual(space.Host(block.residual)),
      h(space.Host(block.h)),
      grid(block.grid),
      refit_scales(block.refit_scales),
      scales(space.Host(block.scales)),
      zeros(space.Host(block.zeros)),
      codes(space.Host(block.codes)),
      change(space.Host(block.change)),
      gain(space.Host(block.gain)) {}

}  // namespace lwq

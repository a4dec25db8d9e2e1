#include "tests/testing/cuda_host/arena.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

namespace lwq::cuda_host {
namespace {

bool AllAre(const uint8_t* data, size_t bytes, uint8_t value) {
  for (size_t i = 0; i < bytes; ++i) {
    if (data[i] != value) return false;
  }
  return true;
}

}  // namespace

Arena::Arena() {
  void* memory =
      mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  base_ = static_cast<uint8_t*>(memory);
}

void* Arena::Reserve(size_t bytes) {
  if (bytes_in_use_ + bytes > capacity_) return nullptr;
  const size_t footprint = Footprint(bytes);
  std::vector<uint8_t*>& returned = returned_[footprint];
  uint8_t* start = nullptr;
  if (!returned.empty()) {
    start = returned.back();
    returned.pop_back();
  } else {
    if (next_ + footprint > kReserved) return nullptr;
    start = base_ + next_;
    next_ += footprint;
  }
  bytes_in_use_ += bytes;
  blocks_[start + kGuard] = {bytes, false};
  return start + kGuard;
}

void Arena::Begin(void* data) {
  Block& block = blocks_.at(static_cast<uint8_t*>(data));
  block.usable = true;
  uint8_t* start = static_cast<uint8_t*>(data) - kGuard;
  std::memset(start, kGuardByte, Footprint(block.bytes));
  std::memset(data, kFreshByte, block.bytes);
}

std::string Arena::End(void* data) {
  const auto found = blocks_.find(static_cast<uint8_t*>(data));
  if (found == blocks_.end() || !found->second.usable) return "memory is freed that is not in use";
  const size_t bytes = found->second.bytes;
  uint8_t* start = static_cast<uint8_t*>(data) - kGuard;
  std::memset(data, kFreedByte, bytes);
  bytes_in_use_ -= bytes;
  blocks_.erase(found);
  returned_[Footprint(bytes)].push_back(start);
  return "";
}

void Arena::Open() {
  if (mprotect(base_, kReserved, PROT_READ | PROT_WRITE) != 0) std::abort();
}

void Arena::Close() {
  if (mprotect(base_, kReserved, PROT_NONE) != 0) std::abort();
}

std::string Arena::Objection(const void* data, size_t bytes) const {
  const uint8_t* first = static_cast<const uint8_t*>(data);
  if (first < base_ || first >= base_ + kReserved) return "is not device memory";
  auto block = blocks_.upper_bound(first);
  if (block == blocks_.begin()) return "is not allocated";
  --block;
  const auto& [start, held] = *block;
  if (first >= start + held.bytes) return "is not allocated";
  if (!held.usable) return "is not allocated yet in the stream's order";
  if (first + bytes > start + held.bytes) {
    return "ends " + std::to_string(first + bytes - start - held.bytes) + " bytes past " +
           std::to_string(held.bytes) + " allocated ones";
  }
  return "";
}

std::string Arena::BrokenGuard() const {
  for (const auto& [start, block] : blocks_) {
    if (!block.usable) continue;
    const size_t behind = Footprint(block.bytes) - kGuard - block.bytes;
    if (!AllAre(start - kGuard, kGuard, kGuardByte) ||
        !AllAre(start + block.bytes, behind, kGuardByte)) {
      return "memory beside an allocation of " + std::to_string(block.bytes) + " bytes was written";
    }
  }
  return "";
}

}  // namespace lwq::cuda_host

#include "worker/engine/tensor/host_memory.h"

#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace lwq {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
// From here on blocks are whole huge pages, from the system and back to it: what malloc takes back
// of such a size may stay with the process.
constexpr size_t kLarge = 4 * kHugePage;

// The next multiple above: never nothing, and some room behind the end.
size_t NextMultiple(size_t bytes, size_t of) { return (bytes + of) / of * of; }

// Null when there is no memory. `size`: whole huge pages.
void* MapPages(size_t size) {
  void* all =
      mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) return nullptr;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(all);
  const uintptr_t aligned = (begin + kHugePage - 1) / kHugePage * kHugePage;
  if (aligned > begin) munmap(all, aligned - begin);
  const uintptr_t end = begin + size + kHugePage;
  if (end > aligned + size) munmap(reinterpret_cast<void*>(aligned + size), end - aligned - size);
  void* data = reinterpret_cast<void*>(aligned);
  // Advice: where the system does not follow it, pages are small.
  madvise(data, size, MADV_HUGEPAGE);
  return data;
}

// Large blocks: those in use and those kept.
class LargeBlocks {
 public:
  // Never destroyed: matrices may outlive any static.
  static LargeBlocks& Get() {
    static LargeBlocks* blocks = new LargeBlocks();
    return *blocks;
  }

  void* Allocate(size_t size) {
    std::lock_guard lock(mutex_);
    void* data = TakeKept(size);
    if (data == nullptr) {
      most_ = std::max(most_, in_use_ + size);
      while (!kept_.empty() && in_use_ + size + kept_bytes_ > most_) DropOldest();
      data = MapPages(size);
      if (data == nullptr) return nullptr;
    }
    sizes_[data] = size;
    in_use_ += size;
    return data;
  }

  // False when it is none of them.
  bool Free(void* data) {
    std::lock_guard lock(mutex_);
    const auto found = sizes_.find(data);
    if (found == sizes_.end()) return false;
    kept_.push_back({data, found->second});
    kept_bytes_ += found->second;
    in_use_ -= found->second;
    sizes_.erase(found);
    return true;
  }

  size_t in_use() {
    std::lock_guard lock(mutex_);
    return in_use_;
  }
  size_t held() {
    std::lock_guard lock(mutex_);
    return in_use_ + kept_bytes_;
  }

  void Trim() {
    std::lock_guard lock(mutex_);
    while (!kept_.empty()) DropOldest();
    most_ = in_use_;
  }

 private:
  void* TakeKept(size_t size) {
    const auto found = std::find_if(kept_.rbegin(), kept_.rend(),
                                    [&](const auto& block) { return block.second == size; });
    if (found == kept_.rend()) return nullptr;
    void* data = found->first;
    kept_.erase(std::next(found).base());
    kept_bytes_ -= size;
    return data;
  }

  void DropOldest() {
    munmap(kept_.front().first, kept_.front().second);
    kept_bytes_ -= kept_.front().second;
    kept_.erase(kept_.begin());
  }

  std::mutex mutex_;
  absl::flat_hash_map<void*, size_t> sizes_;    // of those in use
  std::vector<std::pair<void*, size_t>> kept_;  // the oldest first
  size_t in_use_ = 0, kept_bytes_ = 0;
  size_t most_ = 0;  // that has been in use
};

std::atomic<size_t> small_in_use = 0;
std::atomic<size_t> ceiling_of_blocks = 0;  // 0: none

}  // namespace

void* AllocateHost(size_t bytes) {
  if (bytes >= kLarge) return LargeBlocks::Get().Allocate(NextMultiple(bytes, kHugePage));
  void* data = std::aligned_alloc(kAlignment, NextMultiple(bytes, kAlignment));
  if (data != nullptr) small_in_use += malloc_usable_size(data);
  return data;
}

void FreeHost(void* data) {
  if (data == nullptr || LargeBlocks::Get().Free(data)) return;
  small_in_use -= malloc_usable_size(data);
  std::free(data);
}

void SetHostCeiling(int64_t ceiling_bytes, int64_t anonymous_bytes) {
  const int64_t blocks = static_cast<int64_t>(LargeBlocks::Get().held() + small_in_use);
  const int64_t besides = std::max<int64_t>(0, anonymous_bytes - blocks);
  ceiling_of_blocks =
      ceiling_bytes <= 0 ? 0 : static_cast<size_t>(std::max<int64_t>(1, ceiling_bytes - besides));
}

bool HostAllows(size_t bytes) {
  const size_t most = ceiling_of_blocks;
  if (most == 0) return true;
  const size_t in_use = LargeBlocks::Get().in_use() + small_in_use;
  return in_use <= most && bytes <= most - in_use;
}

bool KeepFreedMemory() {
  // Setting either also stops malloc from changing both as it goes.
  return mallopt(M_MMAP_THRESHOLD, int{32} << 20) == 1 &&
         mallopt(M_TRIM_THRESHOLD, int{1} << 30) == 1;
}

void TrimHost() {
  LargeBlocks::Get().Trim();
  malloc_trim(0);
}

}  // namespace lwq

#include "worker/engine/tensor/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace lwq {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
// From here on a huge page more or less is no matter.
constexpr size_t kLarge = 8 * kHugePage;

// The next multiple above: never nothing, and some room behind the end.
size_t NextMultiple(size_t bytes, size_t of) { return (bytes + of) / of * of; }

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
      data = std::aligned_alloc(kHugePage, size);
      if (data == nullptr) return nullptr;
      // Advice: where the system does not follow it, pages are small.
      madvise(data, size, MADV_HUGEPAGE);
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
    std::free(kept_.front().first);
    kept_bytes_ -= kept_.front().second;
    kept_.erase(kept_.begin());
  }

  std::mutex mutex_;
  absl::flat_hash_map<void*, size_t> sizes_;    // of those in use
  std::vector<std::pair<void*, size_t>> kept_;  // the oldest first
  size_t in_use_ = 0, kept_bytes_ = 0;
  size_t most_ = 0;  // that has been in use
};

}  // namespace

void* AllocateHost(size_t bytes) {
  if (bytes < kLarge) return std::aligned_alloc(kAlignment, NextMultiple(bytes, kAlignment));
  return LargeBlocks::Get().Allocate(NextMultiple(bytes, kHugePage));
}

void FreeHost(void* data) {
  if (data != nullptr && !LargeBlocks::Get().Free(data)) std::free(data);
}

void TrimHost() { LargeBlocks::Get().Trim(); }

}  // namespace lwq

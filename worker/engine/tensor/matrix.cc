#include "worker/engine/tensor/matrix.h"

#include <sys/mman.h>

namespace lwq {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
// From here on a huge page more or less is no matter.
constexpr size_t kLarge = 8 * kHugePage;

// The next multiple above: never nothing, and some room behind the end.
size_t NextMultiple(size_t bytes, size_t of) { return (bytes + of) / of * of; }

}  // namespace

void* AllocateHost(size_t bytes) {
  if (bytes < kLarge) return std::aligned_alloc(kAlignment, NextMultiple(bytes, kAlignment));
  const size_t size = NextMultiple(bytes, kHugePage);
  void* data = std::aligned_alloc(kHugePage, size);
  // Advice: where the system does not follow it, pages are small.
  if (data != nullptr) madvise(data, size, MADV_HUGEPAGE);
  return data;
}

}  // namespace lwq

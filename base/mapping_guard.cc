#include "base/mapping_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <mutex>

namespace lwq {
namespace {

// Read by a signal handler, so nothing here locks or allocates. A slot is free while begin is 0.
struct Slot {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
};
constinit std::array<Slot, 4096> slots;
constinit std::atomic<int64_t> num_lost{0};
uintptr_t page_size = 4096;

bool IsGuarded(uintptr_t address) {
  for (const Slot& slot : slots) {
    const uintptr_t begin = slot.begin.load(std::memory_order_acquire);
    if (begin != 0 && address >= begin && address < slot.end.load(std::memory_order_acquire)) {
      return true;
    }
  }
  return false;
}

void OnBusError(int signal, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  if (IsGuarded(address)) {
    void* const page = reinterpret_cast<void*>(address / page_size * page_size);
    // Zeros in the place of what is gone; the read is then done again.
    if (::mmap(page, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
        page) {
      num_lost.fetch_add(1);
      return;
    }
  }
  // Another fault: the read is done again and ends the process as it would have.
  ::signal(signal, SIG_DFL);
}

}  // namespace

void CatchLostPages() {
  static std::once_flag once;
  std::call_once(once, [] {
    page_size = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
    struct sigaction action = {};
    action.sa_sigaction = OnBusError;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    ::sigaction(SIGBUS, &action, nullptr);
  });
}

int64_t NumLostPages() { return num_lost.load(); }

void GuardMapping(const void* data, size_t size) {
  const auto begin = reinterpret_cast<uintptr_t>(data);
  if (begin == 0 || size == 0) return;
  for (Slot& slot : slots) {
    uintptr_t free = 0;
    // Taken with an end that holds nothing, until the end is there.
    if (slot.begin.load() != 0 || !slot.begin.compare_exchange_strong(free, begin)) continue;
    slot.end.store(begin + size, std::memory_order_release);
    return;
  }
}

void UnguardMapping(const void* data) {
  const auto begin = reinterpret_cast<uintptr_t>(data);
  if (begin == 0) return;
  for (Slot& slot : slots) {
    if (slot.begin.load() != begin) continue;
    slot.end.store(0);
    slot.begin.store(0);
    return;
  }
}

}  // namespace lwq

#include "client/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "client/errors.h"

namespace lwq::client {
namespace {

std::atomic<int> signals_seen{0};
static_assert(std::atomic<int>::is_always_lock_free);

void CountSignal(int) {
  if (signals_seen.fetch_add(1) > 0) ::_exit(kExitInterrupted);
}

}  // namespace

void CatchInterrupts() {
  struct sigaction action = {};
  action.sa_handler = CountSignal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

absl::Status CheckInterrupted() {
  return signals_seen.load() > 0 ? InterruptedError() : absl::OkStatus();
}

}  // namespace lwq::client

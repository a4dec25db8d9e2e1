// Ctrl-C as a flag that long operations look at.
#pragma once

#include "absl/status/status.h"

namespace lwq::client {

// From now on SIGINT and SIGTERM set the flag; a second one ends the process at once (130).
void CatchInterrupts();
// CANCELLED INTERRUPTED once a signal came.
absl::Status CheckInterrupted();

}  // namespace lwq::client

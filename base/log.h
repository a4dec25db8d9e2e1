// Logging for the binaries: one line per event on stderr, as text or JSON. Libraries under
// worker/engine do not log; they return what happened.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "spdlog/spdlog.h"

namespace lwq {

enum class LogFormat { kText, kJson };

// Sets up the process's logger. Call once, at the start of main. Levels: trace, debug, info, warn,
// error, off.
void InitLogging(absl::string_view process, LogFormat format, absl::string_view level);

// `text` with control characters as \xNN, those of C1 and those that turn the direction of text
// among them: what terminals may take for orders.
std::string WithoutControls(absl::string_view text);
// The same, at most 2,000 bytes of it: whatever came from outside is logged and
// shown through this. Doing it twice changes nothing.
std::string LogSafe(absl::string_view text);

}  // namespace lwq

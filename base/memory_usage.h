// What this process holds.
#pragma once

#include <cstdint>

namespace lwq {

// Anonymous resident memory (RssAnon of /proc/self/status): heap and stacks, not mapped files. 0
// where the system does not tell.
int64_t AnonymousMemoryBytes();

}  // namespace lwq

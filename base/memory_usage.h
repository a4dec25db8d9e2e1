// What this process, or another one of this user, holds.
#pragma once

#include <cstdint>

namespace lwq {

// Anonymous resident memory (RssAnon of /proc/self/status): heap and stacks, not mapped files. 0
// where the system does not tell.
int64_t AnonymousMemoryBytes();
// Of another process.
int64_t AnonymousMemoryBytesOf(int pid);

}  // namespace lwq

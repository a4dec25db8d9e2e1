#include "base/memory_usage.h"

#include <cstdio>

namespace lwq {

namespace {

int64_t AnonymousOf(const char* status) {
  std::FILE* file = std::fopen(status, "r");
  if (file == nullptr) return 0;
  char line[256];
  long long kib = 0;
  while (std::fgets(line, sizeof line, file) != nullptr) {
    if (std::sscanf(line, "RssAnon: %lld", &kib) == 1) break;
  }
  std::fclose(file);
  return static_cast<int64_t>(kib) * 1024;
}

}  // namespace

int64_t AnonymousMemoryBytes() { return AnonymousOf("/proc/self/status"); }

int64_t AnonymousMemoryBytesOf(int pid) {
  char status[64];
  std::snprintf(status, sizeof status, "/proc/%d/status", pid);
  return AnonymousOf(status);
}

}  // namespace lwq

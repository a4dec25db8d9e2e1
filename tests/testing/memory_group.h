// A control group with little memory: a process that is put into it and wants more is killed by the
// kernel, as on a machine whose memory has run out.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace lwq::testing {

class MemoryGroup {
 public:
  // exists() is false where this system has none that this user may make.
  explicit MemoryGroup(int64_t bytes);
  // Its processes have to have ended.
  ~MemoryGroup();
  MemoryGroup(const MemoryGroup&) = delete;
  MemoryGroup& operator=(const MemoryGroup&) = delete;

  bool exists() const { return !path_.empty(); }
  // What the process has by now counts where it was; what it gets from now on counts here.
  bool Add(pid_t pid);

 private:
  std::string path_;  // "": there is none
};

}  // namespace lwq::testing

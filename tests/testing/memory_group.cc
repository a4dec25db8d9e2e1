#include "tests/testing/memory_group.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"

namespace lwq::testing {
namespace {

// Not replaced but written to: these are the kernel's.
bool WriteTo(const std::string& path, int64_t value) {
  std::ofstream file(path);
  file << value << std::flush;
  return file.good();
}

struct Version {
  const char* root;
  const char* limit;
  const char* switch_on;  // in the root; "": it is
};
constexpr Version kVersions[] = {
    {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", ""},
    {"/sys/fs/cgroup", "memory.max", "cgroup.subtree_control"},
};

}  // namespace

MemoryGroup::MemoryGroup(int64_t bytes) {
  for (const Version& version : kVersions) {
    const std::string path = absl::StrCat(version.root, "/lwq-test-", ::getpid());
    if (*version.switch_on != 0) {
      std::ofstream(absl::StrCat(version.root, "/", version.switch_on)) << "+memory";
    }
    if (::mkdir(path.c_str(), 0755) != 0) continue;
    if (WriteTo(absl::StrCat(path, "/", version.limit), bytes)) {
      path_ = path;
      return;
    }
    ::rmdir(path.c_str());
  }
}

MemoryGroup::~MemoryGroup() {
  if (exists()) ::rmdir(path_.c_str());
}

bool MemoryGroup::Add(pid_t pid) { return WriteTo(absl::StrCat(path_, "/cgroup.procs"), pid); }

}  // namespace lwq::testing

// A disk of a few bytes, to see what happens when it is full.
#pragma once

#include <sys/mount.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace lwq::testing {

// Lies over `directory` as long as this lives, where the user may mount at all.
class SmallDisk {
 public:
  SmallDisk(std::string directory, int64_t bytes)
      : directory_(std::move(directory)),
        mounted_(::mount("tmpfs", directory_.c_str(), "tmpfs", 0,
                         absl::StrCat("size=", bytes).c_str()) == 0) {}
  ~SmallDisk() {
    if (mounted_) ::umount2(directory_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }

 private:
  const std::string directory_;
  const bool mounted_;
};

}  // namespace lwq::testing

// Where tests find the team's shared test data: $LWQ_SHARED_DATA, else ../shared/data beside the
// checkout. Tests that need it skip, visibly, where it is missing.
#pragma once

#include <cstdlib>
#include <string>

#include "base/file.h"
#include "gtest/gtest.h"

namespace lwq::testing {

inline std::string SharedDataPath(const std::string& relative) {
  const char* root = std::getenv("LWQ_SHARED_DATA");
  return JoinPath(root != nullptr ? root : LWQ_SOURCE_DIR "/../shared/data", relative);
}

// The bundled sample model; always there.
inline std::string SampleModelPath() { return LWQ_SOURCE_DIR "/examples/lwq-books-10m"; }

}  // namespace lwq::testing

#define LWQ_SKIP_WITHOUT_SHARED_DATA(relative)                                              \
  if (!::lwq::FileExists(::lwq::testing::SharedDataPath(relative)))                         \
  GTEST_SKIP() << "needs the shared test data " << ::lwq::testing::SharedDataPath(relative) \
               << " (set LWQ_SHARED_DATA)"

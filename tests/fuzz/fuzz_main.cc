// libFuzzer over one kind of input: fuzz_input --input=gguf [libFuzzer's flags] CORPUS...
// tests/fuzz/run runs them all.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/strip.h"
#include "tests/fuzz/inputs.h"

namespace {
lwq::testing::TryInput* chosen = nullptr;
}  // namespace

// libFuzzer passes over flags that begin with "--".
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  for (int i = 1; i < *argc; ++i) {
    absl::string_view flag = (*argv)[i];
    if (!absl::ConsumePrefix(&flag, "--input=")) continue;
    for (const lwq::testing::FuzzInput& input : lwq::testing::FuzzInputs()) {
      if (input.name == flag) chosen = input.try_input;
    }
  }
  if (chosen != nullptr) return 0;
  std::fprintf(stderr, "fuzz_input: --input= takes one of");
  for (const lwq::testing::FuzzInput& input : lwq::testing::FuzzInputs()) {
    std::fprintf(stderr, " %s", std::string(input.name).c_str());
  }
  std::fprintf(stderr, "\n");
  std::exit(2);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::StatusOr<bool> accepted =
      chosen(absl::string_view(reinterpret_cast<const char*>(data), size));
  if (accepted.ok()) return 0;
  std::fprintf(stderr, "broken: %s\n", accepted.status().ToString().c_str());
  std::abort();
}

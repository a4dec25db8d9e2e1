// SHA-256, the identity of every blob, file and cache key.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace lwq {

// Streaming SHA-256. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(absl::Span<const uint8_t> bytes);
  void Update(absl::string_view bytes);
  // Lower-case hexadecimal, 64 characters. Call once.
  std::string FinishHex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string Sha256Hex(absl::string_view bytes);
absl::StatusOr<std::string> Sha256HexOfFile(const std::string& path);
// True for 64 lower-case hexadecimal characters.
bool IsSha256Hex(absl::string_view text);

// `num_bytes` random bytes from the operating system, as lower-case hexadecimal.
std::string RandomHex(int num_bytes);

}  // namespace lwq

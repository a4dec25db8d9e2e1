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

  // What was hashed so far as text, from which another object, in another process as well, goes on.
  // After a multiple of 64 bytes only.
  std::string Save() const;
  // False, and nothing changed, for what Save did not give.
  bool Restore(absl::string_view saved);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string Sha256Hex(absl::string_view bytes);
absl::StatusOr<std::string> Sha256HexOfFile(const std::string& path);
// True for 64 lower-case hexadecimal characters.
bool IsSha256Hex(absl::string_view text);

// HMAC-SHA-256 (RFC 2104), 32 bytes.
std::string HmacSha256(absl::string_view key, absl::string_view message);

// `num_bytes` random bytes from the operating system, as lower-case hexadecimal.
std::string RandomHex(int num_bytes);

}  // namespace lwq

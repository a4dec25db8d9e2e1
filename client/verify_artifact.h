// Proving an artifact that lies on the local disk, without any server.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace lwq::client {

struct VerifiedArtifact {
  int64_t num_files = 0;    // whose size and SHA-256 are the manifest's
  int64_t num_tensors = 0;  // of GGUF files, all of whose values are finite
  int64_t bytes = 0;
};

// `path`: an artifact's directory, or a file FILE.gguf. Every file is held against the manifest
// that was written with it, and a GGUF file is read whole besides. Errors: NOT_FOUND
// "FILE_NOT_FOUND" for an artifact or a manifest that is not there; DATA_LOSS "VERIFY_MISMATCH"
// naming the file, found and expected; DATA_LOSS of the GGUF reader.
absl::StatusOr<VerifiedArtifact> VerifyArtifactAt(const std::string& path);

}  // namespace lwq::client

// An artifact's files on the local disk, whole and checked, or not at all.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "client/client.h"

namespace lwq::client {

// Bytes that are there, of how many.
using DownloadProgress = std::function<void(int64_t done, int64_t total)>;

// Brings every file of the artifact into the directory `staging` (made when missing). A file is
// written as NAME.partial, checked against its SHA-256, flushed and renamed; files and partial
// files of an earlier attempt are used, a damaged one is fetched again. After OK `staging` holds
// the artifact's files, durable, and nothing else. DATA_LOSS DIGEST_MISMATCH when the server sends
// other bytes; INVALID_ARGUMENT ARTIFACT_FILE_NAME for a name that is a path.
absl::Status DownloadArtifact(Client* client, const v1::Artifact& artifact,
                              const std::string& staging,
                              const DownloadProgress& progress = nullptr);

// ALREADY_EXISTS OUTPUT_EXISTS unless `directory` is missing or an empty directory.
absl::Status CheckOutputFree(const std::string& directory);

// Makes the finished `staging` directory appear as `directory` in one step, over file systems too
// (through `directory`.partial, which is removed again on an error).
absl::Status PublishDirectory(const std::string& staging, const std::string& directory);

}  // namespace lwq::client

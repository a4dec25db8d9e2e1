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

// Whether an output path names a file, which a GGUF artifact is, and no directory.
bool IsFileOutput(absl::string_view path);
// What is beside an artifact's weights and begins with "lwq-": its manifest and report. Beside a
// file PATH they are PATH.lwq-manifest.json and PATH.lwq-report.json.
std::string ProofPath(absl::string_view out, absl::string_view name);

// ALREADY_EXISTS OUTPUT_EXISTS unless nothing is at `out` or, where it names a directory, that is
// empty.
absl::Status CheckOutput(const std::string& out);

// The same, and that it can be made where it is to be: before hours of work are done for it. USAGE
// for
// "." and "..", PERMISSION_DENIED for a folder that may not be written.
absl::Status CheckOutputPlace(const std::string& out);
// RESOURCE_EXHAUSTED STORAGE_FULL unless its disk has room for so many bytes.
absl::Status CheckOutputRoom(const std::string& out, int64_t bytes);

// Makes what `staging` holds appear at `out`, as a directory or as one file with its proof beside
// it; the file comes last. INVALID_ARGUMENT USAGE when `out` names a file and the artifact is none.
absl::Status Publish(const std::string& staging, const std::string& out);

// Makes the finished `staging` directory appear as `directory` in one step, over file systems too
// (through `directory`.partial, which is removed again on an error).
absl::Status PublishDirectory(const std::string& staging, const std::string& directory);

}  // namespace lwq::client

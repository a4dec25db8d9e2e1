// How a task gets at blobs: by local files. The runner knows no network; worker/blob_cache.h
// fetches and uploads.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "proto/lwq/v1/blob.pb.h"

namespace lwq {

// Thread-safe.
class BlobAccess {
 public:
  virtual ~BlobAccess() = default;
  // Path of a local file with exactly this content. It stays until the task ends; it must not be
  // changed. NOT_FOUND "BLOB_MISSING", DATA_LOSS "BLOB_CORRUPT".
  virtual absl::StatusOr<std::string> Fetch(const v1::BlobRef& blob) = 0;
  // Takes over the file at `path` (on the file system of ScratchDirectory) and uploads it. `sha256` is
  // what it was hashed to while it was written; empty: it was not, and is read for it. The blob is
  // durable when this returns.
  virtual absl::StatusOr<v1::BlobRef> Store(const std::string& path,
                                            const std::string& sha256) = 0;
  // A directory for the task's own files; emptied when the task ends.
  virtual std::string ScratchDirectory() const = 0;
};

}  // namespace lwq

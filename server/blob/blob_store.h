// The blob seam: content by digest. A blob is there or it is not; one that is there is whole, and
// stays as it is for ever. Every mutable pointer to one is a record of server/store.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/hash.h"

namespace lwq {

struct BlobId {
  std::string sha256;
  int64_t size_bytes = 0;
  friend auto operator<=>(const BlobId&, const BlobId&) = default;
};
// INVALID_ARGUMENT "DIGEST_INVALID" unless it is 64 hexadecimal characters and a size of 0 to 256
// GiB.
absl::Status CheckBlobId(const BlobId& id);
BlobId BlobIdOf(absl::string_view content);

// Reads of one blob; not thread-safe.
class BlobReader {
 public:
  virtual ~BlobReader() = default;
  virtual int64_t size_bytes() const = 0;
  // At most `limit` bytes from `offset`; "" at the end. A blob that is read from 0 in order is
  // checked on the way: its last bytes are given out only when the digest of all is right, and
  // else the blob is quarantined: DATA_LOSS "BLOB_CORRUPT". Who reads a part checks the whole.
  virtual absl::StatusOr<std::string> Read(int64_t offset, int64_t limit) = 0;
};

// One upload. What was written stays when it is given up, as far as the medium keeps it, and a
// later writer of the same owner goes on from there. Not thread-safe.
class BlobWriter {
 public:
  virtual ~BlobWriter() = default;
  virtual int64_t committed_bytes() const = 0;
  // INVALID_ARGUMENT "SIZE_EXCEEDED" past the declared size; RESOURCE_EXHAUSTED "STORAGE_FULL".
  virtual absl::Status Append(absl::string_view bytes) = 0;
  // Checks size and digest, flushes and puts it in place. INVALID_ARGUMENT "DIGEST_MISMATCH" drops
  // what was written, and so does a flush that failed: nobody knows what of it is on the medium.
  // Once only; after OK the blob survives a power cut.
  virtual absl::Status Finish() = 0;
};

struct BlobStat {
  BlobId id;
  absl::Time written;
};

// An upload that is not finished.
struct UploadStat {
  std::string sha256;
  std::string owner;
  int64_t bytes = 0;  // that are there
};

// A request that whoever holds it may make at the medium itself, so that the bytes do not pass
// through the server. A secret until it expires.
struct BlobGrant {
  std::string method;
  std::string url;
  std::map<std::string, std::string> headers;  // to be sent as they are
  absl::Time expires;
};

// Thread-safe. Errors of the medium: UNAVAILABLE "BLOB_IO"; of an id: those of CheckBlobId.
class BlobStore {
 public:
  virtual ~BlobStore() = default;

  // Whether the blob is there at its size. An error is the medium's, never absence.
  virtual absl::StatusOr<bool> Has(const BlobId& id) const = 0;
  // Those that are not there, in the order asked.
  virtual absl::StatusOr<std::vector<BlobId>> FindMissing(absl::Span<const BlobId> ids) const;
  // NOT_FOUND "BLOB_MISSING"; DATA_LOSS "BLOB_CORRUPT", and quarantined, at another size.
  virtual absl::StatusOr<std::unique_ptr<BlobReader>> OpenRead(const BlobId& id) = 0;
  // Reserves the space for as long as the writer lives. What `owner` left of the blob is gone on
  // with, and what another did is neither seen nor touched; two may write one blob at a time, and
  // each writes all of it. An owner is a resource id; "" is the workers' and the server's own.
  // UNAVAILABLE "UPLOAD_BUSY" while another writer of the same blob and owner lives;
  // RESOURCE_EXHAUSTED "STORAGE_FULL" when there is no room beside what other writers reserved.
  virtual absl::StatusOr<std::unique_ptr<BlobWriter>> OpenUpload(const BlobId& id,
                                                                 const std::string& owner) = 0;
  absl::StatusOr<std::unique_ptr<BlobWriter>> OpenWrite(const BlobId& id) {
    return OpenUpload(id, "");
  }
  // Bytes that an owner's unfinished upload has, 0 without one.
  virtual absl::StatusOr<int64_t> UploadedBytesOf(const BlobId& id,
                                                  const std::string& owner) const = 0;
  absl::StatusOr<int64_t> UploadedBytes(const BlobId& id) const { return UploadedBytesOf(id, ""); }
  // All that are unfinished, in any order.
  virtual absl::StatusOr<std::vector<UploadStat>> ListUploads() const = 0;
  // Drops unfinished uploads that were last written before `before` and have no writer; how many.
  virtual absl::StatusOr<int> ExpireUploads(absl::Time before) = 0;
  // For collection only. No error when it is not there.
  virtual absl::Status Delete(const BlobId& id) = 0;
  // At most `limit` blobs whose digest is greater than `after`, by digest.
  virtual absl::StatusOr<std::vector<BlobStat>> List(const std::string& after, int limit) const = 0;

  // To read the blob, or to write it whole: the medium refuses other bytes than the digest's. None
  // where the medium takes no such requests, or not for a blob of that size.
  virtual std::optional<BlobGrant> GrantRead(const BlobId&, absl::Duration) { return {}; }
  virtual std::optional<BlobGrant> GrantWrite(const BlobId&, absl::Duration) { return {}; }

  // A whole small blob. Whoever reads it back gets what was put: one that is there is read first.
  absl::StatusOr<BlobId> Put(absl::string_view content);

  // Of blobs that are known: a medium that takes long to count has those since it was opened.
  virtual int64_t total_bytes() const = 0;
  virtual int64_t total_count() const = 0;
  // Blobs that were found to be wrong since the store was opened.
  virtual int64_t num_corrupt() const = 0;
  // INT64_MAX where there is no limit that anybody knows.
  virtual absl::StatusOr<int64_t> FreeBytes() const = 0;
};

}  // namespace lwq

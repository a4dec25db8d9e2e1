#include "server/blob/s3_blob_store.h"

#include <algorithm>
#include <map>
#include <thread>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/blob/s3_upload.h"
#include "server/blob/verifying_reader.h"

namespace lwq {
namespace {

constexpr int64_t kReadAheadBytes = int64_t{2} << 20;
constexpr int64_t kMaxBufferBytes = int64_t{1} << 30;
constexpr int64_t kMaxPutBytes = int64_t{5} << 30;  // S3's, of one request
constexpr size_t kLookUpThreads = 16;
constexpr int kMaxListed = 1'000;  // S3's, of one answer

absl::Status MissingError(const BlobId& id) {
  return Failure(reasons::kBlobMissing, absl::StrCat("no blob ", id.sha256));
}

// Whose state an object under uploads/ is.
UploadStat UploadOf(const S3Object& state) {
  const std::vector<std::string> parts =
      absl::StrSplit(absl::StripPrefix(state.key, "uploads/"), absl::MaxSplits('.', 1));
  return {.sha256 = parts[0], .owner = parts.size() > 1 ? parts[1] : ""};
}

// Reads by blocks, since a request costs milliseconds however little it asks for.
class S3Reader : public BlobReader {
 public:
  S3Reader(S3Client* s3, const BlobId& id) : s3_(s3), id_(id) {}
  int64_t size_bytes() const override { return id_.size_bytes; }

  absl::StatusOr<std::string> Read(int64_t offset, int64_t limit) override {
    if (offset >= id_.size_bytes || limit <= 0) return std::string();
    const int64_t end = begin_ + static_cast<int64_t>(block_.size());
    if (offset < begin_ || offset >= end) LWQ_RETURN_IF_ERROR(Fetch(offset, limit));
    return block_.substr(static_cast<size_t>(offset - begin_), static_cast<size_t>(limit));
  }

 private:
  absl::Status Fetch(int64_t offset, int64_t limit) {
    const int64_t size = std::min(std::max(limit, kReadAheadBytes), id_.size_bytes - offset);
    absl::StatusOr<std::string> block = s3_->Get(S3BlobKey(id_.sha256), offset, size);
    if (absl::IsNotFound(block.status())) return MissingError(id_);
    LWQ_RETURN_IF_ERROR(block.status());
    if (static_cast<int64_t>(block->size()) != size) {
      return Failure(reasons::kBlobCorrupt, absl::StrCat("blob ", id_.sha256, " gave ",
                                                         block->size(), " bytes for ", size));
    }
    block_ = *std::move(block);
    begin_ = offset;
    return absl::OkStatus();
  }

  S3Client* const s3_;
  const BlobId id_;
  std::string block_;
  int64_t begin_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<S3BlobStore>> S3BlobStore::Open(const S3BlobOptions& options) {
  auto store = std::unique_ptr<S3BlobStore>(new S3BlobStore(options));
  absl::Status there = store->s3_.CheckBucket();
  if (!there.ok()) return Annotate(there, "opening bucket ", options.location.bucket);
  return store;
}

absl::StatusOr<bool> S3BlobStore::Has(const BlobId& id) const {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  absl::StatusOr<S3Object> object = s3_.Head(S3BlobKey(id.sha256));
  if (absl::IsNotFound(object.status())) return false;
  LWQ_RETURN_IF_ERROR(object.status());
  return object->size_bytes == id.size_bytes;
}

absl::StatusOr<std::vector<BlobId>> S3BlobStore::FindMissing(absl::Span<const BlobId> ids) const {
  std::vector<absl::StatusOr<bool>> there(ids.size(), false);
  std::atomic<size_t> next{0};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < std::min(ids.size(), kLookUpThreads); ++t) {
    threads.emplace_back([&] {
      for (size_t i = next++; i < ids.size(); i = next++) there[i] = Has(ids[i]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<BlobId> missing;
  for (size_t i = 0; i < ids.size(); ++i) {
    LWQ_RETURN_IF_ERROR(there[i].status());
    if (!*there[i]) missing.push_back(ids[i]);
  }
  return missing;
}

absl::StatusOr<std::unique_ptr<BlobReader>> S3BlobStore::OpenRead(const BlobId& id) {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  absl::StatusOr<S3Object> object = s3_.Head(S3BlobKey(id.sha256));
  if (absl::IsNotFound(object.status())) return MissingError(id);
  LWQ_RETURN_IF_ERROR(object.status());
  if (object->size_bytes != id.size_bytes) {
    DeleteIfWrong({id.sha256, object->size_bytes});
    return Failure(reasons::kBlobCorrupt,
                   absl::StrCat("blob ", id.sha256, " has ", object->size_bytes, " bytes, ",
                                id.size_bytes, " expected"));
  }
  return MakeVerifyingReader(id, std::make_unique<S3Reader>(&s3_, id),
                             [this, id] { DeleteIfWrong(id); });
}

void S3BlobStore::DeleteIfWrong(const BlobId& id) {
  S3Reader reader(&s3_, id);
  Sha256 hash;
  for (int64_t offset = 0; offset < id.size_bytes;) {
    absl::StatusOr<std::string> bytes = reader.Read(offset, kReadAheadBytes);
    if (!bytes.ok()) return;
    hash.Update(*bytes);
    offset += static_cast<int64_t>(bytes->size());
  }
  if (hash.FinishHex() == id.sha256) return;
  spdlog::warn("blob {} is corrupt: deleted", id.sha256);
  ++num_corrupt_;
  absl::Status deleted = Delete(id);
  if (!deleted.ok()) spdlog::warn("{}", LogSafe(deleted.message()));
}

absl::StatusOr<std::unique_ptr<BlobWriter>> S3BlobStore::OpenUpload(const BlobId& id,
                                                                    const std::string& owner) {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  const std::string key = S3UploadKey(id.sha256, owner);
  LWQ_RETURN_IF_ERROR(MarkOpen(id, key));
  absl::StatusOr<S3UploadState> state = LoadUploadState(s3_, id, key, options_.part_bytes);
  if (!state.ok()) {
    MarkClosed(key);
    return state.status();
  }
  return std::make_unique<S3BlobWriter>(this, id, key, *std::move(state));
}

// Each upload keeps a part in memory, so there are not as many as callers like.
absl::Status S3BlobStore::MarkOpen(const BlobId& id, const std::string& key) {
  const int64_t buffer = std::min(id.size_bytes, options_.part_bytes);
  MutexLock lock(&mu_);
  const bool full = !open_uploads_.empty() && buffer_bytes_ + buffer > kMaxBufferBytes;
  if (full || !open_uploads_.emplace(key, buffer).second) {
    return Failure(
        reasons::kUploadBusy,
        absl::StrCat(full ? "too many calls are uploading, not yet " : "another call is uploading ",
                     id.sha256, ": try again"));
  }
  buffer_bytes_ += buffer;
  return absl::OkStatus();
}

void S3BlobStore::MarkClosed(const std::string& key) {
  MutexLock lock(&mu_);
  auto upload = open_uploads_.find(key);
  buffer_bytes_ -= upload->second;
  open_uploads_.erase(upload);
}

bool S3BlobStore::IsOpen(const std::string& sha256) const {
  const std::string prefix = S3UploadKey(sha256, "");
  MutexLock lock(&mu_);
  const auto first = open_uploads_.lower_bound(prefix);
  return first != open_uploads_.end() && absl::StartsWith(first->first, prefix);
}

absl::StatusOr<int64_t> S3BlobStore::UploadedBytesOf(const BlobId& id,
                                                     const std::string& owner) const {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  LWQ_ASSIGN_OR_RETURN(
      const S3UploadState state,
      LoadUploadState(s3_, id, S3UploadKey(id.sha256, owner), options_.part_bytes));
  return state.committed_bytes();
}

absl::StatusOr<std::vector<UploadStat>> S3BlobStore::ListUploads() const {
  LWQ_ASSIGN_OR_RETURN(const auto states, s3_.List("uploads/", "", kMaxListed));
  std::vector<UploadStat> uploads;
  for (const S3Object& object : states) {
    absl::StatusOr<std::string> text = s3_.Get(object.key, 0, object.size_bytes);
    if (absl::IsNotFound(text.status())) continue;  // finished meanwhile
    LWQ_RETURN_IF_ERROR(text.status());
    const absl::StatusOr<S3UploadState> state = S3UploadState::FromText(*text);
    UploadStat& upload = uploads.emplace_back(UploadOf(object));
    if (state.ok()) upload.bytes = state->committed_bytes();
  }
  return uploads;
}

// By digest: which owner's the parts are is known to the state alone, which may be missing.
absl::StatusOr<int> S3BlobStore::ExpireUploads(absl::Time before) {
  LWQ_ASSIGN_OR_RETURN(const auto states, s3_.List("uploads/", "", kMaxListed));
  LWQ_ASSIGN_OR_RETURN(const auto uploads, s3_.ListUploads("sha256/"));
  std::map<std::string, absl::Time> written;
  for (const S3Upload& upload : uploads) {
    const std::string sha256(absl::StripPrefix(upload.key, "sha256/"));
    absl::Time& time = written.emplace(sha256, upload.started).first->second;
    time = std::max(time, upload.started);
  }
  for (const S3Object& state : states) {
    absl::Time& time = written.emplace(UploadOf(state).sha256, state.written).first->second;
    time = std::max(time, state.written);
  }
  int dropped = 0;
  for (const auto& [sha256, time] : written) {
    if (time >= before || IsOpen(sha256)) continue;
    for (const S3Object& state : states) {
      if (UploadOf(state).sha256 == sha256) LWQ_RETURN_IF_ERROR(s3_.Delete(state.key));
    }
    for (const S3Upload& upload : uploads) {
      if (upload.key == S3BlobKey(sha256)) {
        LWQ_RETURN_IF_ERROR(s3_.AbortUpload(upload.key, upload.id));
      }
    }
    ++dropped;
  }
  return dropped;
}

absl::Status S3BlobStore::Delete(const BlobId& id) {
  LWQ_RETURN_IF_ERROR(CheckBlobId(id));
  absl::StatusOr<S3Object> object = s3_.Head(S3BlobKey(id.sha256));
  if (absl::IsNotFound(object.status())) return absl::OkStatus();
  LWQ_RETURN_IF_ERROR(object.status());
  LWQ_RETURN_IF_ERROR(s3_.Delete(S3BlobKey(id.sha256)));
  bytes_ -= object->size_bytes;
  --count_;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<BlobStat>> S3BlobStore::List(const std::string& after, int limit) const {
  std::vector<BlobStat> found;
  std::string last = after.empty() ? "" : S3BlobKey(after);
  while (static_cast<int>(found.size()) < limit) {
    const int wanted = std::min(limit - static_cast<int>(found.size()), kMaxListed);
    LWQ_ASSIGN_OR_RETURN(const auto objects, s3_.List("sha256/", last, wanted));
    for (const S3Object& object : objects) {
      const std::string digest(absl::StripPrefix(object.key, "sha256/"));
      if (IsSha256Hex(digest)) found.push_back({{digest, object.size_bytes}, object.written});
      last = object.key;
    }
    if (static_cast<int>(objects.size()) < wanted) break;
  }
  return found;
}

std::optional<BlobGrant> S3BlobStore::GrantRead(const BlobId& id, absl::Duration life) {
  if (!CheckBlobId(id).ok()) return {};
  return BlobGrant{
      "GET", s3_.Sign("GET", S3BlobKey(id.sha256), {}, life), {}, options_.clock->Now() + life};
}

std::optional<BlobGrant> S3BlobStore::GrantWrite(const BlobId& id, absl::Duration life) {
  if (!CheckBlobId(id).ok() || id.size_bytes > kMaxPutBytes) return {};
  const S3Headers headers = {
      {"x-amz-checksum-sha256", absl::Base64Escape(absl::HexStringToBytes(id.sha256))}};
  return BlobGrant{"PUT", s3_.Sign("PUT", S3BlobKey(id.sha256), headers, life), headers,
                   options_.clock->Now() + life};
}

}  // namespace lwq

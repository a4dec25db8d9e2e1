#include "worker/blob_cache.h"

#include <sys/stat.h>
#include <unistd.h>
#include <utime.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/reasons.h"
#include "base/retry.h"
#include "base/rpc/channel.h"
#include "base/rpc/grpc_status.h"
#include "base/rpc/timeout.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

// One call moves what it can in this time; the next goes on from there.
constexpr absl::Duration kCallTimeout = absl::Minutes(2);

bool IsStoreFull(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return reason == reasons::kStorageFull.name || reason == reasons::kStoreFull.name;
}

// A server without room may have some again: an old upload ends, somebody deletes. What is uploaded
// is worth a wait as long as it took to compute, and no longer: the task fails then, and is
// computed again. Not as long as a task may stand still either (the server's --stall-timeout).
RetryPolicy UntilRoom(absl::Duration computed_for) {
  return {.first_wait = absl::Seconds(5),
          .longest_wait = absl::Seconds(5),
          .time = std::clamp(computed_for, absl::Seconds(30), absl::Minutes(5)),
          .is_transient = IsStoreFull};
}

// Whether the rest may come later: the connection was cut, the server is away or busy.
bool MayGoOn(const absl::Status& status) {
  return IsRetryable(status) || status.code() == absl::StatusCode::kOutOfRange;
}

// Of calls in a row that move nothing.
constexpr RetryPolicy kGoOn = {
    .first_wait = absl::Milliseconds(400), .tries = 5, .is_transient = MayGoOn};

}  // namespace

BlobCache::BlobCache(std::string directory, std::shared_ptr<grpc::Channel> channel,
                     int64_t max_bytes, Clock* clock)
    : blobs_(JoinPath(directory, "blobs")),
      scratch_(JoinPath(directory, "scratch")),
      max_bytes_(max_bytes),
      clock_(clock),
      task_begun_(clock->Steady()),
      stub_(v1::BlobService::NewStub(std::move(channel))) {}

absl::StatusOr<std::unique_ptr<BlobCache>> BlobCache::Open(const std::string& directory,
                                                           std::shared_ptr<grpc::Channel> channel,
                                                           int64_t max_bytes, Clock* clock) {
  std::unique_ptr<BlobCache> cache(new BlobCache(directory, std::move(channel), max_bytes, clock));
  LWQ_RETURN_IF_ERROR(MakeDirectories(cache->blobs_));
  LWQ_RETURN_IF_ERROR(cache->EndTask());
  return cache;
}

std::string BlobCache::PathOf(const std::string& sha256) const { return JoinPath(blobs_, sha256); }

absl::StatusOr<std::string> BlobCache::Fetch(const v1::BlobRef& blob) {
  const std::string& sha256 = blob.sha256();
  if (!IsSha256Hex(sha256)) {
    return Failure(reasons::kBlobName, absl::StrCat("not a blob digest: \"", sha256, "\""));
  }
  const std::string path = PathOf(sha256);
  {
    MutexLock lock(&mu_);
    while (fetching_.count(sha256) > 0) fetched_.Wait(&mu_);
    if (verified_.count(sha256) > 0) return path;
    fetching_[sha256] = blob.size_bytes();
    if (absl::Status made = MakeRoom(); !made.ok()) {
      fetching_.erase(sha256);
      return made;
    }
  }
  absl::Status status = FetchTo(blob, path);
  MutexLock lock(&mu_);
  fetching_.erase(sha256);
  fetched_.SignalAll();
  if (!status.ok()) return Annotate(status, "fetching blob ", sha256);
  verified_.insert(sha256);
  return path;
}

absl::Status BlobCache::FetchTo(const v1::BlobRef& blob, const std::string& path) {
  if (auto size = FileSize(path); size.ok() && *size == blob.size_bytes()) {
    absl::StatusOr<std::string> digest = Sha256HexOfFile(path);
    if (digest.ok() && *digest == blob.sha256()) {
      ::utime(path.c_str(), nullptr);  // used just now
      return absl::OkStatus();
    }
    LWQ_RETURN_IF_ERROR(RemoveAll(path));
  }
  if (LinkFromServer(blob, path)) return absl::OkStatus();
  return Download(blob, path);
}

bool BlobCache::LinkFromServer(const v1::BlobRef& blob, const std::string& path) const {
  if (server_blobs_.empty()) return false;
  const std::string& name = blob.sha256();
  const std::string there =
      absl::StrCat(server_blobs_, "/sha256/", name.substr(0, 2), "/", name.substr(2, 2), "/", name);
  if (::link(there.c_str(), path.c_str()) != 0) return false;
  const absl::StatusOr<int64_t> size = FileSize(path);
  const absl::StatusOr<std::string> digest = Sha256HexOfFile(path);
  if (size.ok() && *size == blob.size_bytes() && digest.ok() && *digest == name) {
    // The age by which MakeRoom chooses is the file's, which both names share. So the server's file
    // counts as used now too, which is true, and keeps it from a collection for a grace period at
    // most; without it what was just fetched would go first, as long unused as the server has it.
    ::utime(path.c_str(), nullptr);
    return true;
  }
  RemoveAll(path).IgnoreError();  // the server, asked for it, says what is wrong
  return false;
}

bool BlobCache::LinkToServer(const v1::BlobRef& blob, const std::string& path) const {
  if (server_blobs_.empty()) return false;
  const std::string there = absl::StrCat(server_blobs_, "/uploads/", blob.sha256());
  // As an upload would be: written now, or a server that starts again takes it for one that was
  // given up, or for a blob whose grace period is over; and only its owner's.
  if (::chmod(path.c_str(), 0600) != 0 || ::utime(path.c_str(), nullptr) != 0) return false;
  return ::link(path.c_str(), there.c_str()) == 0;
}

absl::Status BlobCache::Download(const v1::BlobRef& blob, const std::string& path) {
  const std::string partial = absl::StrCat(path, ".partial");
  LWQ_ASSIGN_OR_RETURN(auto file, FileWriter::Create(partial));
  Sha256 hash;
  Retry retry(kGoOn, clock_);
  while (true) {
    const int64_t before = file->size();
    const absl::Status status = DownloadFrom(blob, *file, hash);
    if (status.ok()) break;
    if (file->size() > before) retry.Reset();
    LWQ_RETURN_IF_ERROR(retry.BeforeRetry(status));
  }
  if (file->size() != blob.size_bytes() || hash.FinishHex() != blob.sha256()) {
    return Failure(reasons::kBlobCorrupt, "the bytes that came are not those of the digest");
  }
  // Not flushed: what a power cut takes is noticed by the hash before it is read.
  LWQ_RETURN_IF_ERROR(file->Close());
  Failpoint("worker.before_keeping_download");
  return RenameFile(partial, path);
}

absl::Status BlobCache::DownloadFrom(const v1::BlobRef& blob, FileWriter& file, Sha256& hash) {
  grpc::ClientContext context;
  SetTimeout(context, kCallTimeout);
  v1::ReadBlobRequest request;
  *request.mutable_blob() = blob;
  request.set_read_offset(file.size());
  auto reader = stub_->ReadBlob(&context, request);
  v1::ReadBlobResponse response;
  while (reader->Read(&response)) {
    if (response.offset() != file.size()) {
      context.TryCancel();
      return absl::InternalError("the server's stream skipped bytes");
    }
    LWQ_RETURN_IF_ERROR(file.Append(response.data()));
    hash.Update(response.data());
  }
  return FromGrpcStatus(reader->Finish());
}

absl::StatusOr<v1::BlobRef> BlobCache::Store(const std::string& path, const std::string& sha256) {
  v1::BlobRef blob;
  blob.set_sha256(sha256);
  if (sha256.empty()) {
    LWQ_ASSIGN_OR_RETURN(*blob.mutable_sha256(), Sha256HexOfFile(path));
  }
  LWQ_ASSIGN_OR_RETURN(int64_t size, FileSize(path));
  blob.set_size_bytes(size);
  Failpoint("worker.before_upload");
  if (absl::Status status = Upload(blob, path); !status.ok()) {
    return Annotate(status, "uploading ", Basename(path));
  }
  Failpoint("worker.after_upload");
  LWQ_RETURN_IF_ERROR(RenameFile(path, PathOf(blob.sha256())));
  // The task may fetch it again, from the server when there was no room: it holds no path of it.
  MutexLock lock(&mu_);
  LWQ_RETURN_IF_ERROR(MakeRoom());
  return blob;
}

absl::Status BlobCache::Upload(const v1::BlobRef& blob, const std::string& path) {
  bool waited = false;
  absl::Status status = UploadWhole(blob, path, waited);
  if (waited && tell_waits_) tell_waits_("");
  return status;
}

absl::Status BlobCache::UploadWhole(const v1::BlobRef& blob, const std::string& path,
                                    bool& waited) {
  int64_t most = -1;
  Retry cut(kGoOn, clock_);
  Retry full(UntilRoom(clock_->Steady() - task_begun_), clock_, [&](const absl::Status& status) {
    if (stopped_) return status;
    waited = true;
    if (tell_waits_) tell_waits_(absl::StrCat("the server's storage is full: ", status.message()));
    return absl::OkStatus();
  });
  while (true) {
    absl::StatusOr<int64_t> committed = UploadedBytes(blob);
    absl::Status status = committed.status();
    if (committed.ok()) {
      if (*committed < 0) return absl::OkStatus();
      if (*committed == 0 && LinkToServer(blob, path)) committed = blob.size_bytes();
      if (*committed > most) cut.Reset();
      most = std::max(most, *committed);
      status = UploadFrom(blob, path, *committed);
    }
    if (status.ok()) return status;
    LWQ_RETURN_IF_ERROR(IsStoreFull(status) ? full.BeforeRetry(status) : cut.BeforeRetry(status));
  }
}

// -1 when the blob is there whole.
absl::StatusOr<int64_t> BlobCache::UploadedBytes(const v1::BlobRef& blob) {
  grpc::ClientContext context;
  SetTimeout(context, kCallTimeout);
  v1::QueryWriteStatusRequest request;
  *request.mutable_blob() = blob;
  v1::QueryWriteStatusResponse response;
  LWQ_RETURN_IF_ERROR(FromGrpcStatus(stub_->QueryWriteStatus(&context, request, &response)));
  return response.complete() ? -1 : response.committed_bytes();
}

absl::Status BlobCache::UploadFrom(const v1::BlobRef& blob, const std::string& path,
                                   int64_t offset) {
  LWQ_ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
  grpc::ClientContext context;
  SetTimeout(context, kCallTimeout);
  v1::WriteBlobResponse response;
  auto writer = stub_->WriteBlob(&context, &response);
  const int64_t size = static_cast<int64_t>(file->bytes().size());
  bool first = true;
  do {
    const int64_t count = std::min<int64_t>(kStreamChunkBytes, size - offset);
    v1::WriteBlobRequest request;
    if (first) {
      *request.mutable_blob() = blob;
      request.set_write_offset(offset);
      first = false;
    }
    request.set_data(file->bytes().data() + offset, count);
    offset += count;
    request.set_finish_write(offset == size);
    Failpoint("worker.upload_chunk");
    if (!writer->Write(request)) break;  // the status says why
    file->Forget(offset - count, count);
  } while (offset < size);
  writer->WritesDone();
  LWQ_RETURN_IF_ERROR(FromGrpcStatus(writer->Finish()));
  if (response.committed_bytes() != size) {
    return absl::UnavailableError(
        absl::StrCat("the server has ", response.committed_bytes(), " of ", size, " bytes"));
  }
  return absl::OkStatus();
}

absl::Status BlobCache::EndTask() {
  tell_waits_ = nullptr;
  LWQ_RETURN_IF_ERROR(RemoveAll(scratch_));
  LWQ_RETURN_IF_ERROR(MakeDirectories(scratch_));
  // What a download that was given up left.
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(blobs_));
  for (const std::string& name : names) {
    if (!IsSha256Hex(name)) LWQ_RETURN_IF_ERROR(RemoveAll(JoinPath(blobs_, name)));
  }
  MutexLock lock(&mu_);
  verified_.clear();
  return MakeRoom();
}

absl::Status BlobCache::MakeRoom() {
  struct Cached {
    absl::Time used_at;
    int64_t size;
    std::string path;
  };
  std::vector<Cached> unused;
  int64_t total = 0;
  for (const auto& [sha256, size] : fetching_) total += size;
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(blobs_));
  for (const std::string& name : names) {
    const std::string path = JoinPath(blobs_, name);
    struct stat info;
    if (!IsSha256Hex(name) || fetching_.count(name) > 0) continue;
    if (::stat(path.c_str(), &info) != 0) continue;
    total += info.st_size;
    if (verified_.count(name) > 0) continue;
    unused.push_back({absl::TimeFromTimespec(info.st_mtim), info.st_size, path});
  }
  std::sort(unused.begin(), unused.end(),
            [](const Cached& a, const Cached& b) { return a.used_at < b.used_at; });
  for (const Cached& oldest : unused) {
    if (total <= max_bytes_) break;
    LWQ_RETURN_IF_ERROR(RemoveAll(oldest.path));
    total -= oldest.size;
  }
  return absl::OkStatus();
}

}  // namespace lwq

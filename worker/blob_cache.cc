#include "worker/blob_cache.h"

#include <sys/stat.h>
#include <utime.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/rpc/channel.h"
#include "base/rpc/grpc_status.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

// A blob call that stalls for this long is broken off and tried again from where it was.
constexpr absl::Duration kCallTimeout = absl::Minutes(10);
constexpr int kAttempts = 5;

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(absl::ToChronoTime(absl::Now() + kCallTimeout));
}

}  // namespace

BlobCache::BlobCache(std::string directory, std::shared_ptr<grpc::Channel> channel,
                     int64_t max_bytes)
    : blobs_(JoinPath(directory, "blobs")),
      scratch_(JoinPath(directory, "scratch")),
      max_bytes_(max_bytes),
      stub_(v1::BlobService::NewStub(std::move(channel))) {}

absl::StatusOr<std::unique_ptr<BlobCache>> BlobCache::Open(const std::string& directory,
                                                           std::shared_ptr<grpc::Channel> channel,
                                                           int64_t max_bytes) {
  std::unique_ptr<BlobCache> cache(new BlobCache(directory, std::move(channel), max_bytes));
  LWQ_RETURN_IF_ERROR(MakeDirectories(cache->blobs_));
  LWQ_RETURN_IF_ERROR(cache->EndTask());
  return cache;
}

std::string BlobCache::PathOf(const std::string& sha256) const { return JoinPath(blobs_, sha256); }

absl::StatusOr<std::string> BlobCache::Fetch(const v1::BlobRef& blob) {
  if (!IsSha256Hex(blob.sha256())) {
    return InvalidFailure("BLOB_NAME", absl::StrCat("not a blob digest: \"", blob.sha256(), "\""));
  }
  const std::string path = PathOf(blob.sha256());
  if (auto size = FileSize(path); size.ok() && *size == blob.size_bytes()) {
    ::utime(path.c_str(), nullptr);  // used just now
    return path;
  }
  absl::Status status;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    status = Download(blob, path);
    if (status.ok()) return path;
    if (!IsRetryable(status)) break;
    absl::SleepFor(absl::Milliseconds(200) * (1 << attempt));
  }
  return Annotate(status, "fetching blob ", blob.sha256());
}

absl::Status BlobCache::Download(const v1::BlobRef& blob, const std::string& path) {
  grpc::ClientContext context;
  SetDeadline(context);
  v1::ReadBlobRequest request;
  *request.mutable_blob() = blob;
  auto reader = stub_->ReadBlob(&context, request);
  const std::string partial = absl::StrCat(path, ".partial");
  LWQ_ASSIGN_OR_RETURN(auto writer, FileWriter::Create(partial));
  Sha256 hash;
  v1::ReadBlobResponse response;
  while (reader->Read(&response)) {
    if (response.offset() != writer->size()) {
      context.TryCancel();
      return absl::InternalError("the server's stream skipped bytes");
    }
    hash.Update(response.data());
    LWQ_RETURN_IF_ERROR(writer->Append(response.data()));
  }
  LWQ_RETURN_IF_ERROR(FromGrpcStatus(reader->Finish()));
  if (writer->size() != blob.size_bytes() || hash.FinishHex() != blob.sha256()) {
    return CorruptFailure("BLOB_CORRUPT", "the bytes that came are not those of the digest");
  }
  LWQ_RETURN_IF_ERROR(writer->Close());
  return RenameFile(partial, path);
}

absl::StatusOr<v1::BlobRef> BlobCache::Store(const std::string& path) {
  v1::BlobRef blob;
  LWQ_ASSIGN_OR_RETURN(std::string sha256, Sha256HexOfFile(path));
  LWQ_ASSIGN_OR_RETURN(int64_t size, FileSize(path));
  blob.set_sha256(sha256);
  blob.set_size_bytes(size);
  absl::Status status;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    status = Upload(blob, path);
    if (status.ok()) {
      LWQ_RETURN_IF_ERROR(RenameFile(path, PathOf(blob.sha256())));
      return blob;
    }
    if (!IsRetryable(status) && status.code() != absl::StatusCode::kOutOfRange) break;
    absl::SleepFor(absl::Milliseconds(200) * (1 << attempt));
  }
  return Annotate(status, "uploading ", Basename(path));
}

absl::Status BlobCache::Upload(const v1::BlobRef& blob, const std::string& path) {
  grpc::ClientContext context;
  SetDeadline(context);
  v1::QueryWriteStatusRequest request;
  *request.mutable_blob() = blob;
  v1::QueryWriteStatusResponse response;
  LWQ_RETURN_IF_ERROR(FromGrpcStatus(stub_->QueryWriteStatus(&context, request, &response)));
  if (response.complete()) return absl::OkStatus();
  return UploadFrom(blob, path, response.committed_bytes());
}

absl::Status BlobCache::UploadFrom(const v1::BlobRef& blob, const std::string& path,
                                   int64_t offset) {
  LWQ_ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
  grpc::ClientContext context;
  SetDeadline(context);
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
  LWQ_RETURN_IF_ERROR(RemoveAll(scratch_));
  LWQ_RETURN_IF_ERROR(MakeDirectories(scratch_));
  struct Cached {
    int64_t used_at;
    int64_t size;
    std::string path;
  };
  std::vector<Cached> cached;
  int64_t total = 0;
  LWQ_ASSIGN_OR_RETURN(std::vector<std::string> names, ListDirectory(blobs_));
  for (const std::string& name : names) {
    const std::string path = JoinPath(blobs_, name);
    struct stat info;
    if (!IsSha256Hex(name) || ::stat(path.c_str(), &info) != 0) {
      LWQ_RETURN_IF_ERROR(RemoveAll(path));
      continue;
    }
    cached.push_back({info.st_mtim.tv_sec, info.st_size, path});
    total += info.st_size;
  }
  std::sort(cached.begin(), cached.end(),
            [](const Cached& a, const Cached& b) { return a.used_at < b.used_at; });
  for (const Cached& oldest : cached) {
    if (total <= max_bytes_) break;
    LWQ_RETURN_IF_ERROR(RemoveAll(oldest.path));
    total -= oldest.size;
  }
  return absl::OkStatus();
}

}  // namespace lwq

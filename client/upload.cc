#include "client/upload.h"

#include <algorithm>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/choice_forms.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace lwq::client {
namespace {

constexpr int64_t kChunkBytes = 256 << 10;
// Enough for the slowest link that is worth using: 1 MiB/s, and a minute on top.
constexpr int64_t kSlowestBytesPerSecond = 1 << 20;

absl::StatusOr<v1::BlobRef> Describe(const std::string& path) {
  if (!FileExists(path)) {
    return Failure(reasons::kFileNotFound, absl::StrCat("there is no file ", path));
  }
  if (IsDirectory(path)) {
    return Failure(reasons::kDatasetInvalid,
                   absl::StrCat(path, " is a directory; expected a text or JSON lines file"));
  }
  v1::BlobRef blob;
  LWQ_ASSIGN_OR_RETURN(const int64_t size, FileSize(path));
  if (size == 0) return Failure(reasons::kDatasetInvalid, absl::StrCat(path, " is empty"));
  LWQ_ASSIGN_OR_RETURN(const std::string sha256, Sha256HexOfFile(path));
  blob.set_size_bytes(size);
  blob.set_sha256(sha256);
  return blob;
}

// One attempt, from what the server has already.
absl::Status SendFrom(Client* client, const std::string& path, const v1::BlobRef& blob,
                      int64_t offset) {
  LWQ_ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  if (static_cast<int64_t>(file->bytes().size()) != blob.size_bytes()) {
    return Failure(reasons::kFileChanged,
                   absl::StrCat(path, " changed while it was being sent; try again"));
  }
  bool first = true;
  bool finished = false;
  const auto next = [&](v1::WriteBlobRequest* request) -> absl::StatusOr<bool> {
    if (finished) return false;
    if (first) {
      *request->mutable_blob() = blob;
      request->set_write_offset(offset);
      first = false;
    }
    const int64_t size = std::min(kChunkBytes, blob.size_bytes() - offset);
    request->set_data(file->bytes().data() + offset, static_cast<size_t>(size));
    offset += size;
    finished = offset == blob.size_bytes();
    request->set_finish_write(finished);
    return true;
  };
  const absl::Duration timeout =
      absl::Minutes(1) + absl::Seconds(blob.size_bytes() / kSlowestBytesPerSecond);
  v1::WriteBlobResponse response;
  return client->StreamBlob(timeout, next, &response);
}

}  // namespace

absl::StatusOr<v1::BlobRef> UploadFile(Client* client, const std::string& path) {
  LWQ_ASSIGN_OR_RETURN(const v1::BlobRef blob, Describe(path));
  v1::FindMissingBlobsRequest request;
  *request.add_blobs() = blob;
  LWQ_ASSIGN_OR_RETURN(const v1::FindMissingBlobsResponse missing,
                       client->FindMissingBlobs(request));
  if (missing.missing().empty()) return blob;
  RetryLoop retry(client->options());
  int mismatches = 0;
  while (true) {
    LWQ_ASSIGN_OR_RETURN(const v1::QueryWriteStatusResponse written,
                         client->QueryWriteStatus(blob));
    if (written.complete()) return blob;
    const absl::Status sent = SendFrom(client, path, blob, written.committed_bytes());
    if (sent.ok()) return blob;
    // Another client is sending the same bytes: ask again how far they are.
    constexpr int kMostMismatches = 20;
    if (ReasonOf(sent) == reasons::kOffsetMismatch.name && ++mismatches <= kMostMismatches) {
      client->options().clock->SleepFor(absl::Milliseconds(100));
      continue;
    }
    LWQ_RETURN_IF_ERROR(
        Annotate(retry.BeforeRetry(sent), "sending ", path, " to the server's blob store"));
  }
}

absl::StatusOr<v1::Dataset> UploadDataset(Client* client, const std::string& path,
                                          const std::string& dataset_id) {
  LWQ_ASSIGN_OR_RETURN(const v1::BlobRef blob, UploadFile(client, path));
  v1::CreateDatasetRequest request;
  request.set_dataset_id(dataset_id);
  const bool lines = absl::EndsWith(path, ".jsonl") || absl::EndsWith(path, ".json");
  v1::Dataset* dataset = request.mutable_dataset();
  *dataset->mutable_blob() = blob;
  dataset->set_kind(lines ? v1::Dataset::JSONL : v1::Dataset::TEXT);
  dataset->set_display_name(Basename(path));
  return client->CreateDataset(std::move(request));
}

bool HasChoices(const std::string& path) {
  constexpr size_t kMostBytes = 64 << 20;  // as long as a line may be
  const absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return false;
  const auto bytes = (*file)->bytes().first(std::min((*file)->bytes().size(), kMostBytes));
  absl::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  absl::ConsumePrefix(&text, "\xEF\xBB\xBF");
  while (!text.empty()) {
    const absl::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    const auto item = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    return item.is_object() && ChoiceFormOf([&item](absl::string_view key) {
                                 return item.contains(std::string(key));
                               }) >= 0;
  }
  return false;
}

}  // namespace lwq::client

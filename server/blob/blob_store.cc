#include "server/blob/blob_store.h"

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int64_t kMaxBlobBytes = int64_t{256} << 30;

}  // namespace

absl::Status CheckBlobId(const BlobId& id) {
  if (!IsSha256Hex(id.sha256)) {
    return Failure(reasons::kDigestInvalid,
                   "a blob is named by 64 lower-case hexadecimal characters");
  }
  if (id.size_bytes < 0 || id.size_bytes > kMaxBlobBytes) {
    return Failure(reasons::kDigestInvalid,
                   absl::StrCat("blob size ", id.size_bytes, " is outside 0 to ", kMaxBlobBytes));
  }
  return absl::OkStatus();
}

BlobId BlobIdOf(absl::string_view content) {
  return {Sha256Hex(content), static_cast<int64_t>(content.size())};
}

absl::StatusOr<std::vector<BlobId>> BlobStore::FindMissing(absl::Span<const BlobId> ids) const {
  std::vector<BlobId> missing;
  for (const BlobId& id : ids) {
    LWQ_ASSIGN_OR_RETURN(const bool there, Has(id));
    if (!there) missing.push_back(id);
  }
  return missing;
}

absl::StatusOr<BlobId> BlobStore::Put(absl::string_view content) {
  const BlobId id = BlobIdOf(content);
  LWQ_ASSIGN_OR_RETURN(const bool there, Has(id));
  if (there) {
    LWQ_ASSIGN_OR_RETURN(auto reader, OpenRead(id));
    absl::StatusOr<std::string> bytes = reader->Read(0, id.size_bytes);
    if (bytes.ok()) return id;
    if (!absl::IsDataLoss(bytes.status())) return bytes.status();
  }
  // What an earlier writer left may be wrong: the first Finish then drops it.
  absl::Status finished;
  for (int attempt = 0; attempt < 2; ++attempt) {
    LWQ_ASSIGN_OR_RETURN(auto writer, OpenWrite(id));
    LWQ_RETURN_IF_ERROR(writer->Append(content.substr(writer->committed_bytes())));
    finished = writer->Finish();
    if (ReasonOf(finished) != reasons::kDigestMismatch.name) break;
  }
  if (!finished.ok()) return finished;
  return id;
}

}  // namespace lwq

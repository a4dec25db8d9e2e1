#include "server/blob/open_blob_store.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/blob/local_blob_store.h"
#include "server/blob/memory_blob_store.h"
#include "server/blob/s3_blob_store.h"

namespace lwq {

absl::StatusOr<std::unique_ptr<BlobStore>> OpenBlobStore(const std::string& url) {
  if (url == "memory:") return std::make_unique<MemoryBlobStore>();
  if (absl::StartsWith(url, "s3://")) {
    S3BlobOptions options;
    LWQ_ASSIGN_OR_RETURN(options.location, ParseS3Url(url));
    LWQ_ASSIGN_OR_RETURN(options.credentials, S3CredentialsFromEnvironment());
    return S3BlobStore::Open(options);
  }
  std::string path(absl::StripPrefix(absl::StripPrefix(url, "file://"), "file:"));
  if (!path.empty() && !absl::StrContains(path, "://")) return LocalBlobStore::Open(path);
  return Failure(
      reasons::kBlobUrlInvalid,
      absl::StrCat("\"", url, "\" names no blob store: FOLDER and s3://BUCKET/PREFIX do"));
}

}  // namespace lwq

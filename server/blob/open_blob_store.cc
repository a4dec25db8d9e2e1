#include "server/blob/open_blob_store.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/failure.h"
#include "server/blob/local_blob_store.h"
#include "server/blob/memory_blob_store.h"

namespace lwq {

absl::StatusOr<std::unique_ptr<BlobStore>> OpenBlobStore(const std::string& url) {
  if (url == "memory:") return std::make_unique<MemoryBlobStore>();
  std::string path(absl::StripPrefix(absl::StripPrefix(url, "file://"), "file:"));
  if (!path.empty() && !absl::StrContains(path, "://")) return LocalBlobStore::Open(path);
  return InvalidFailure("BLOB_URL_INVALID",
                        absl::StrCat("\"", url, "\" names no blob store: a folder is one"));
}

}  // namespace lwq

// Which blob store a URL means.
#pragma once

#include <memory>
#include <string>

#include "server/blob/blob_store.h"

namespace lwq {

// "directory" or "file:directory"; "s3://..." as ParseS3Url reads it; "memory:". INVALID_ARGUMENT
// "BLOB_URL_INVALID".
absl::StatusOr<std::unique_ptr<BlobStore>> OpenBlobStore(const std::string& url);

}  // namespace lwq

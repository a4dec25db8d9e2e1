// Checks a blob's digest while it is read.
#pragma once

#include <functional>
#include <memory>

#include "server/blob/blob_store.h"

namespace lwq {

// Reads of `raw`, as BlobReader says. `on_corrupt` is called once, when the blob is found to be
// wrong, before the read that found it returns.
std::unique_ptr<BlobReader> MakeVerifyingReader(const BlobId& id, std::unique_ptr<BlobReader> raw,
                                                std::function<void()> on_corrupt);

}  // namespace lwq

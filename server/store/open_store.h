// Which store a URL means.
#pragma once

#include <memory>
#include <string>

#include "server/store/store.h"

namespace lwq {

// "directory" or "sqlite:directory"; "postgresql://..."; "memory:". INVALID_ARGUMENT
// "STORE_URL_INVALID"; else the errors of the store's own Open.
absl::StatusOr<std::unique_ptr<Store>> OpenStore(const std::string& url);

}  // namespace lwq

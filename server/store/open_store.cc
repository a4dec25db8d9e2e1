#include "server/store/open_store.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/reasons.h"
#include "server/store/memory_store.h"
#include "server/store/postgres_store.h"
#include "server/store/sqlite_store.h"

namespace lwq {

absl::StatusOr<std::unique_ptr<Store>> OpenStore(const std::string& url) {
  if (url == "memory:") return std::make_unique<MemoryStore>();
  if (absl::StartsWith(url, "postgresql://") || absl::StartsWith(url, "postgres://")) {
    return PostgresStore::Open(url);
  }
  const std::string path(absl::StripPrefix(absl::StripPrefix(url, "sqlite://"), "sqlite:"));
  if (!path.empty() && !absl::StrContains(path, "://")) return SqliteStore::Open(path);
  return Failure(
      reasons::kStoreUrlInvalid,
      absl::StrCat("\"", url.substr(0, url.find("://")),
                   "\" names no store: sqlite:FOLDER and postgresql://HOST/DATABASE do"));
}

}  // namespace lwq

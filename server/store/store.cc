#include "server/store/store.h"

#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr absl::string_view kTableNames[kNumTables] = {
    "jobs",   "tasks",    "cache",  "workers", "models", "datasets", "artifacts",
    "events", "requests", "server", "leader",  "tokens", "uploads"};

}  // namespace

absl::string_view NameOf(Table table) { return kTableNames[static_cast<int>(table)]; }

absl::Status CheckWrites(const std::vector<Write>& writes) {
  for (const Write& write : writes) {
    const int64_t expected = write.expected_version.value_or(write.check_only ? 0 : 1);
    if ((write.check_only || write.remove) && expected <= 0) {
      return Failure(
          reasons::kWriteInvalid,
          absl::StrCat(write.remove ? "removing " : "checking ", write.record.key, " of ",
                       NameOf(write.table), ": an expected version above 0 is needed"));
    }
    if (write.check_only && write.remove) {
      return Failure(reasons::kWriteInvalid, "a write removes or checks, not both");
    }
  }
  return absl::OkStatus();
}

absl::Status VersionConflict(const Write& write, int64_t found) {
  return Failure(
      reasons::kVersionConflict,
      absl::StrCat("writing ", write.record.key, " of ", NameOf(write.table), ": version ",
                   *write.expected_version, " expected, ", found, " found"));
}

absl::StatusOr<Record> Store::Get(Table table, const std::string& key) {
  LWQ_ASSIGN_OR_RETURN(std::vector<Record> rows, GetMany(table, {key}));
  if (rows.empty()) {
    return Failure(reasons::kNotFound, absl::StrCat("no ", key, " in ", NameOf(table)));
  }
  return std::move(rows.front());
}

}  // namespace lwq

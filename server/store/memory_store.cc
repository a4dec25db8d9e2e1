#include "server/store/memory_store.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

bool Matches(const Record& row, const ListQuery& query) {
  if (!absl::StartsWith(row.key, query.key_prefix)) return false;
  if (query.state && row.state != *query.state) return false;
  if (query.tag && row.tag != *query.tag) return false;
  const auto& tenants = query.tenants;
  if (!tenants.empty() && std::find(tenants.begin(), tenants.end(), row.tenant) == tenants.end()) {
    return false;
  }
  return row.order >= query.order_at_least;
}

}  // namespace

absl::Status MemoryStore::Commit(const std::vector<Write>& writes) {
  LWQ_RETURN_IF_ERROR(CheckWrites(writes));
  MutexLock lock(&mu_);
  // Writes of one commit see each other, so they go to a copy of what they touch first.
  std::map<std::pair<int, std::string>, std::optional<Record>> staged;
  for (const Write& write : writes) {
    const int t = static_cast<int>(write.table);
    auto key = std::make_pair(t, write.record.key);
    if (staged.find(key) == staged.end()) {
      auto row = tables_[t].find(write.record.key);
      staged[key] = row == tables_[t].end() ? std::nullopt : std::optional<Record>(row->second);
    }
    std::optional<Record>& row = staged[key];
    const int64_t version = row ? row->version : 0;
    if (write.expected_version && *write.expected_version != version) {
      return VersionConflict(write, version);
    }
    if (write.check_only) continue;
    if (write.remove) {
      row.reset();
    } else {
      row = write.record;
      row->version = version + 1;
    }
  }
  for (auto& [key, row] : staged) {
    if (row) {
      tables_[key.first][key.second] = std::move(*row);
    } else {
      tables_[key.first].erase(key.second);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Record>> MemoryStore::GetMany(Table table,
                                                         const std::vector<std::string>& keys) {
  MutexLock lock(&mu_);
  const Rows& rows = tables_[static_cast<int>(table)];
  std::vector<Record> found;
  for (const std::string& key : keys) {
    auto row = rows.find(key);
    if (row != rows.end()) found.push_back(row->second);
  }
  return found;
}

absl::StatusOr<std::vector<Record>> MemoryStore::List(Table table, const ListQuery& query) {
  MutexLock lock(&mu_);
  std::vector<Record> found;
  const bool by_key = query.order == ListQuery::Order::kKeyAscending;
  for (const auto& [key, row] : tables_[static_cast<int>(table)]) {
    if (!Matches(row, query)) continue;
    const bool after = by_key ? row.key > query.after_key
                              : row.order < query.after_order ||
                                    (row.order == query.after_order && row.key > query.after_key);
    if (after || (by_key && query.after_key.empty())) found.push_back(row);
  }
  if (!by_key) {
    std::sort(found.begin(), found.end(), [](const Record& a, const Record& b) {
      return a.order != b.order ? a.order > b.order : a.key < b.key;
    });
  }
  if (static_cast<int>(found.size()) > query.limit) found.resize(query.limit);
  return found;
}

}  // namespace lwq

#include "server/store/store_copy.h"

#include <functional>

#include "absl/strings/str_cat.h"
#include "base/hash.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int kPage = 200;

bool IsCopied(Table table) { return table != Table::kLeader; }

absl::Status ForEachPage(Store& store, Table table,
                         const std::function<absl::Status(const std::vector<Record>&)>& visit) {
  ListQuery query;
  query.order_at_least = INT64_MIN;
  query.limit = kPage;
  while (true) {
    LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows, store.List(table, query));
    if (!rows.empty()) LWQ_RETURN_IF_ERROR(visit(rows));
    if (static_cast<int>(rows.size()) < kPage) return absl::OkStatus();
    query.after_key = rows.back().key;
  }
}

absl::Status CheckEmpty(Store& store) {
  for (int t = 0; t < kNumTables; ++t) {
    const Table table = static_cast<Table>(t);
    if (!IsCopied(table)) continue;
    LWQ_RETURN_IF_ERROR(ForEachPage(store, table, [&](const std::vector<Record>& rows) {
      return Failure(reasons::kStoreNotEmpty,
                     absl::StrCat("the target has ", rows.front().key, " in ", NameOf(table),
                                  ": a copy needs a store without records; make a new database"));
    }));
  }
  return absl::OkStatus();
}

absl::Status CopyTable(Store& from, Store& to, Table table) {
  return ForEachPage(from, table, [&](const std::vector<Record>& rows) {
    std::vector<Write> writes;
    for (const Record& row : rows) {
      Write& write = writes.emplace_back();
      write.table = table;
      write.record = row;
      write.expected_version = 0;
    }
    return to.Commit(writes);
  });
}

// Counts and hashes everything but versions.
absl::StatusOr<StoreCopyReport> Survey(Store& store) {
  StoreCopyReport report;
  Sha256 hash;
  const auto add = [&](absl::string_view field) {
    hash.Update(absl::StrCat(field.size(), ":"));
    hash.Update(field);
  };
  for (int t = 0; t < kNumTables; ++t) {
    const Table table = static_cast<Table>(t);
    if (!IsCopied(table)) continue;
    LWQ_RETURN_IF_ERROR(ForEachPage(store, table, [&](const std::vector<Record>& rows) {
      for (const Record& row : rows) {
        add(NameOf(table));
        add(row.key);
        add(absl::StrCat(row.state, ",", row.order));
        add(row.tag);
        add(row.value);
        add(row.tenant);
        ++report.num_records;
      }
      return absl::OkStatus();
    }));
  }
  report.sha256 = hash.FinishHex();
  return report;
}

}  // namespace

absl::StatusOr<StoreCopyReport> CopyStore(Store& from, Store& to) {
  LWQ_RETURN_IF_ERROR(CheckEmpty(to));
  for (int t = 0; t < kNumTables; ++t) {
    const Table table = static_cast<Table>(t);
    if (!IsCopied(table)) continue;
    absl::Status copied = CopyTable(from, to, table);
    if (!copied.ok()) return Annotate(copied, "copying ", NameOf(table));
  }
  LWQ_ASSIGN_OR_RETURN(const StoreCopyReport there, Survey(to));
  LWQ_ASSIGN_OR_RETURN(const StoreCopyReport here, Survey(from));
  if (there.sha256 != here.sha256) {
    return Failure(
        reasons::kCopyDiffers,
        absl::StrCat("the source holds ", here.num_records, " records (", here.sha256.substr(0, 12),
                     "), the target ", there.num_records, " (", there.sha256.substr(0, 12),
                     "): was a server running? Make a new database, copy again"));
  }
  return there;
}

}  // namespace lwq

#include "server/store/postgres_store.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/failpoint.h"
#include "base/mutex.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/store/postgres_connection.h"
#include "server/store/schema.h"
#include "server/store/sql_text.h"

namespace lwq {
namespace {

constexpr SqlDialect kDialect = {
    .bytes = "BYTEA", .small = "INTEGER", .large = "BIGINT", .value = "BYTEA", .table_end = ""};
// Servers that start at once migrate one after the other; the number is the product's port.
constexpr char kBeginMigration[] = "BEGIN; SELECT pg_advisory_xact_lock(7421)";
constexpr int kMaxConnections = 6;
constexpr int kMaxAttempts = 6;
// So few that their answers fit the socket's buffer while the next are still being sent.
constexpr size_t kStatementsAtOnce = 64;
constexpr absl::Duration kOutcomeWait = absl::Milliseconds(250);
constexpr int kOutcomeAttempts = 20;

Record RowOf(const PgResult& rows, int i) {
  Record row;
  row.key = rows.Bytes(i, 0);
  row.version = rows.Int(i, 1);
  row.state = static_cast<int32_t>(rows.Int(i, 2));
  row.tag = rows.Bytes(i, 3);
  row.order = rows.Int(i, 4);
  row.value = rows.Bytes(i, 5);
  row.tenant = rows.Bytes(i, 6);
  return row;
}

std::vector<Record> RowsOf(const PgResult& result) {
  std::vector<Record> rows;
  for (int i = 0; i < result.num_rows(); ++i) rows.push_back(RowOf(result, i));
  return rows;
}

// The statement of a write. One that has a condition affects a row if and only if the condition
// holds.
PgStatement StatementOf(const Write& write) {
  const absl::string_view table = NameOf(write.table);
  const Record& row = write.record;
  const bool exists = write.expected_version.value_or(0) > 0;
  PgStatement statement;
  statement.params.push_back(PgParam::Bytes(row.key));
  if (exists) statement.params.push_back(PgParam::Int(*write.expected_version));
  const char* at_version = exists ? " AND version=$2" : "";
  if (write.check_only) {
    // The lock keeps the row as it is until this commit is done: a leader cannot be replaced in
    // between.
    statement.sql =
        absl::StrCat("SELECT version FROM ", table, " WHERE key=$1", at_version, " FOR SHARE");
    return statement;
  }
  if (write.remove) {
    statement.sql = absl::StrCat("DELETE FROM ", table, " WHERE key=$1", at_version);
    return statement;
  }
  const int first = static_cast<int>(statement.params.size()) + 1;
  statement.params.push_back(PgParam::Int(row.state));
  statement.params.push_back(PgParam::Bytes(row.tag));
  statement.params.push_back(PgParam::Int(row.order));
  statement.params.push_back(PgParam::Bytes(row.value));
  statement.params.push_back(PgParam::Bytes(row.tenant));
  if (exists) {
    statement.sql = absl::StrCat("UPDATE ", table, " SET version=version+1, state=$", first,
                                 ", tag=$", first + 1, ", ord=$", first + 2, ", value=$", first + 3,
                                 ", tenant=$", first + 4, " WHERE key=$1", at_version);
    return statement;
  }
  statement.sql = absl::StrCat("INSERT INTO ", table, " AS t (", kRecordColumns,
                               ") VALUES ($1,1,$2,$3,$4,$5,$6) ON CONFLICT (key) DO ",
                               write.expected_version
                                   ? "NOTHING"
                                   : "UPDATE SET version=t.version+1, state=excluded.state, "
                                     "tag=excluded.tag, ord=excluded.ord, value=excluded.value, "
                                     "tenant=excluded.tenant");
  return statement;
}

absl::Status CheckConditions(PostgresConnection& db, absl::Span<const Write> writes,
                             absl::Span<const PgResult> results) {
  for (size_t i = 0; i < writes.size(); ++i) {
    const Write& write = writes[i];
    if (!write.expected_version || results[i].num_affected() > 0) continue;
    // For the message only: it may have changed once more.
    LWQ_ASSIGN_OR_RETURN(
        const PgResult found,
        db.Run({absl::StrCat("SELECT version FROM ", NameOf(write.table), " WHERE key=$1"),
                {PgParam::Bytes(write.record.key)}}));
    return VersionConflict(write, found.num_rows() == 0 ? 0 : found.Int(0, 0));
  }
  return absl::OkStatus();
}

// Everything but COMMIT. `xid` is what the server calls the transaction.
absl::Status WriteAll(PostgresConnection& db, absl::Span<const Write> writes, std::string& xid) {
  std::vector<PgStatement> statements = {{"BEGIN ISOLATION LEVEL READ COMMITTED", {}},
                                         {"SELECT pg_current_xact_id()::text", {}}};
  while (true) {
    const size_t num_first = statements.size();
    const size_t count = std::min(writes.size(), kStatementsAtOnce);
    for (const Write& write : writes.first(count)) statements.push_back(StatementOf(write));
    LWQ_ASSIGN_OR_RETURN(const std::vector<PgResult> results, db.RunAll(statements));
    if (xid.empty()) xid = results[1].Bytes(0, 0);
    LWQ_RETURN_IF_ERROR(
        CheckConditions(db, writes.first(count), absl::MakeSpan(results).subspan(num_first)));
    writes.remove_prefix(count);
    if (writes.empty()) return absl::OkStatus();
    statements.clear();
  }
}

absl::Status NotWritten() {
  return Failure(reasons::kStoreBusy, "the connection was lost in a commit");
}

// An array as PostgreSQL writes it.
std::string ArrayOf(const std::vector<std::string>& keys) {
  return absl::StrCat("{",
                      absl::StrJoin(keys, ",",
                                    [](std::string* out, const std::string& key) {
                                      absl::StrAppend(out, "\"\\\\x", absl::BytesToHexString(key),
                                                      "\"");
                                    }),
                      "}");
}

PgStatement ListStatement(Table table, const ListQuery& query) {
  PgStatement statement;
  const auto add = [&](PgParam param) {
    statement.params.push_back(std::move(param));
    return absl::StrCat("$", statement.params.size());
  };
  std::string& sql = statement.sql;
  sql = absl::StrCat("SELECT ", kRecordColumns, " FROM ", NameOf(table),
                     " WHERE ord>=", add(PgParam::Int(query.order_at_least)));
  if (!query.key_prefix.empty()) {
    absl::StrAppend(&sql, " AND key>=", add(PgParam::Bytes(query.key_prefix)), " AND key<",
                    add(PgParam::Bytes(PrefixEnd(query.key_prefix))));
  }
  if (query.state) absl::StrAppend(&sql, " AND state=", add(PgParam::Int(*query.state)));
  if (query.tag) absl::StrAppend(&sql, " AND tag=", add(PgParam::Bytes(*query.tag)));
  for (size_t i = 0; i < query.tenants.size(); ++i) {
    absl::StrAppend(&sql, i == 0 ? " AND tenant IN (" : ",", add(PgParam::Bytes(query.tenants[i])));
  }
  if (!query.tenants.empty()) absl::StrAppend(&sql, ")");
  if (query.order == ListQuery::Order::kKeyAscending) {
    if (!query.after_key.empty()) {
      absl::StrAppend(&sql, " AND key>", add(PgParam::Bytes(query.after_key)));
    }
    absl::StrAppend(&sql, " ORDER BY key");
  } else {
    const std::string order = add(PgParam::Int(query.after_order));
    absl::StrAppend(&sql, " AND (ord<", order, " OR (ord=", order, " AND key>",
                    add(PgParam::Bytes(query.after_key)), ")) ORDER BY ord DESC, key");
  }
  absl::StrAppend(&sql, " LIMIT ", add(PgParam::Int(query.limit)));
  return statement;
}

}  // namespace

// Connections, each used by one call at a time, made when they are needed.
class PostgresStore::Pool {
 public:
  explicit Pool(std::string url) : url_(std::move(url)) {}

  absl::StatusOr<std::unique_ptr<PostgresConnection>> Take() {
    {
      MutexLock lock(&mu_);
      while (free_.empty() && num_taken_ == kMaxConnections) returned_.Wait(&mu_);
      ++num_taken_;
      if (!free_.empty()) {
        auto connection = std::move(free_.back());
        free_.pop_back();
        return connection;
      }
    }
    auto connection = PostgresConnection::Open(url_);
    if (!connection.ok()) Return(nullptr);
    return connection;
  }

  // A lost one is dropped, and so are the others that waited beside it: they are as lost, most
  // likely, and a new one is cheap.
  void Return(std::unique_ptr<PostgresConnection> connection) {
    MutexLock lock(&mu_);
    --num_taken_;
    if (connection != nullptr && !connection->is_lost()) {
      free_.push_back(std::move(connection));
    } else {
      free_.clear();
    }
    returned_.Signal();
  }

  // Once more on another connection when the first was lost.
  absl::StatusOr<PgResult> Read(const PgStatement& statement) {
    for (int attempt = 1;; ++attempt) {
      LWQ_ASSIGN_OR_RETURN(auto connection, Take());
      absl::StatusOr<PgResult> result = connection->Run(statement);
      const bool lost = connection->is_lost();
      Return(std::move(connection));
      if (result.ok() || !lost || attempt == 2) return result;
    }
  }

 private:
  const std::string url_;
  Mutex mu_;
  CondVar returned_;
  int num_taken_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<std::unique_ptr<PostgresConnection>> free_ ABSL_GUARDED_BY(mu_);
};

PostgresStore::PostgresStore(std::unique_ptr<Pool> pool, Clock* clock)
    : pool_(std::move(pool)), clock_(clock) {}

PostgresStore::~PostgresStore() = default;

absl::StatusOr<std::unique_ptr<PostgresStore>> PostgresStore::Open(const std::string& url,
                                                                   Clock* clock) {
  auto pool = std::make_unique<Pool>(url);
  LWQ_ASSIGN_OR_RETURN(auto connection, pool->Take());
  absl::Status migrated =
      Migrate(*connection, kBeginMigration, Migrations(kDialect), connection->where());
  pool->Return(std::move(connection));
  LWQ_RETURN_IF_ERROR(migrated);
  return std::unique_ptr<PostgresStore>(new PostgresStore(std::move(pool), clock));
}

absl::Status PostgresStore::Commit(const std::vector<Write>& writes) {
  LWQ_RETURN_IF_ERROR(CheckWrites(writes));
  if (writes.empty()) return absl::OkStatus();
  absl::Status status;
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    if (attempt > 0) clock_->SleepFor(absl::Milliseconds(5 << attempt));
    status = TryCommit(writes);
    if (ReasonOf(status) != reasons::kStoreBusy.name) return status;
  }
  return Failure(reasons::kStoreUnavailable, status.message());
}

absl::Status PostgresStore::TryCommit(const std::vector<Write>& writes) {
  LWQ_ASSIGN_OR_RETURN(auto db, pool_->Take());
  std::string xid;
  absl::Status status = WriteAll(*db, writes, xid);
  const bool committing = status.ok();
  if (committing) {
    Failpoint("postgres.before_commit");
    status = db->Execute("COMMIT");
    Failpoint("postgres.after_commit");
  } else if (!db->is_lost()) {
    db->Execute("ROLLBACK").IgnoreError();  // or else the connection is lost now, and dropped
  }
  const bool lost = db->is_lost();
  pool_->Return(std::move(db));
  if (status.ok()) return status;
  if (lost && committing) return OutcomeOf(xid);
  // Before COMMIT nothing can have been written: the same again on another connection.
  return lost && ReasonOf(status) == reasons::kStoreUnavailable.name ? NotWritten() : status;
}

absl::Status PostgresStore::OutcomeOf(const std::string& xid) {
  for (int attempt = 0; attempt < kOutcomeAttempts; ++attempt) {
    if (attempt > 0) clock_->SleepFor(kOutcomeWait);
    absl::StatusOr<PgResult> row =
        pool_->Read({"SELECT coalesce(pg_xact_status($1::xid8), '')", {PgParam::Text(xid)}});
    if (!row.ok()) continue;
    const std::string outcome = row->Bytes(0, 0);
    if (outcome == "committed") return absl::OkStatus();
    if (outcome == "aborted") return NotWritten();
  }
  return Failure(reasons::kStoreUncertain,
                 absl::StrCat("committing transaction ", xid,
                              ": the connection was lost, and the outcome cannot be found out"));
}

absl::StatusOr<std::vector<Record>> PostgresStore::GetMany(Table table,
                                                           const std::vector<std::string>& keys) {
  LWQ_ASSIGN_OR_RETURN(const PgResult result,
                       pool_->Read({absl::StrCat("SELECT ", kRecordColumns, " FROM ", NameOf(table),
                                                 " WHERE key=ANY($1::bytea[])"),
                                    {PgParam::Text(ArrayOf(keys))}}));
  return RowsOf(result);
}

absl::StatusOr<std::vector<Record>> PostgresStore::List(Table table, const ListQuery& query) {
  LWQ_ASSIGN_OR_RETURN(const PgResult result, pool_->Read(ListStatement(table, query)));
  return RowsOf(result);
}

}  // namespace lwq

#include "server/store/sqlite_store.h"

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "base/file.h"
#include "base/mutex.h"
#include "base/private_path.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/store/data_directory.h"
#include "server/store/schema.h"
#include "server/store/sql_text.h"
#include "server/store/sqlite_connection.h"

namespace lwq {
namespace {

constexpr int kNumReaders = 4;

// A few read-only connections, taken by whoever reads.
class ReaderPool {
 public:
  explicit ReaderPool(std::vector<std::unique_ptr<SqliteConnection>> readers)
      : free_(std::move(readers)) {}

  std::unique_ptr<SqliteConnection> Take() {
    MutexLock lock(&mu_);
    while (free_.empty()) returned_.Wait(&mu_);
    auto reader = std::move(free_.back());
    free_.pop_back();
    return reader;
  }
  void Return(std::unique_ptr<SqliteConnection> reader) {
    MutexLock lock(&mu_);
    free_.push_back(std::move(reader));
    returned_.Signal();
  }

 private:
  Mutex mu_;
  CondVar returned_;
  std::vector<std::unique_ptr<SqliteConnection>> free_ ABSL_GUARDED_BY(mu_);
};

Record RowOf(sqlite3_stmt* statement) {
  Record row;
  row.key = ColumnString(statement, 0);
  row.version = sqlite3_column_int64(statement, 1);
  row.state = sqlite3_column_int(statement, 2);
  row.tag = ColumnString(statement, 3);
  row.order = sqlite3_column_int64(statement, 4);
  row.value = ColumnString(statement, 5);
  row.tenant = ColumnString(statement, 6);
  return row;
}

constexpr SqlDialect kDialect = {.bytes = "TEXT",
                                 .small = "INTEGER",
                                 .large = "INTEGER",
                                 .value = "BLOB",
                                 .table_end = " STRICT"};

}  // namespace

struct SqliteStore::State {
  std::unique_ptr<DirectoryLock> lock;
  std::string unclean_mark;  // a file that is there while the store is open
  Mutex mu;
  std::unique_ptr<SqliteConnection> writer ABSL_GUARDED_BY(mu);
  std::unique_ptr<ReaderPool> readers;
};

SqliteStore::SqliteStore(std::unique_ptr<State> state) : state_(std::move(state)) {}

SqliteStore::~SqliteStore() {
  state_->readers.reset();
  {
    MutexLock lock(&state_->mu);
    state_->writer.reset();
  }
  RemoveAll(state_->unclean_mark).IgnoreError();
}

absl::StatusOr<std::unique_ptr<SqliteStore>> SqliteStore::Open(const std::string& directory) {
  LWQ_RETURN_IF_ERROR(MakePrivateDirectory(directory));
  auto state = std::make_unique<State>();
  LWQ_ASSIGN_OR_RETURN(state->lock, DirectoryLock::Take(directory));
  LWQ_RETURN_IF_ERROR(CheckRestored(directory));
  const std::string path = JoinPath(directory, "lwq.db");
  LWQ_ASSIGN_OR_RETURN(auto writer, SqliteConnection::Open(path, /*read_only=*/false));
  const std::string mark = JoinPath(directory, "open");
  if (FileExists(mark)) {
    LWQ_ASSIGN_OR_RETURN(const std::string check, writer->QueryText("PRAGMA quick_check"));
    if (check != "ok") {
      return Failure(reasons::kStoreCorrupt, absl::StrCat("checking ", path, ": ", check));
    }
  }
  LWQ_RETURN_IF_ERROR(WriteFileAtomically(mark, "the store is open, or was not closed\n"));
  LWQ_ASSIGN_OR_RETURN(const std::string mode, writer->QueryText("PRAGMA journal_mode=WAL"));
  if (mode != "wal") {
    return PreconditionFailure(reasons::kStoreUnavailable.name,
                               absl::StrCat(path,
                                            ": this file system does not do WAL: put the "
                                            "data directory on a local disk"));
  }
  LWQ_RETURN_IF_ERROR(writer->Execute("PRAGMA synchronous=FULL"));
  LWQ_RETURN_IF_ERROR(Migrate(*writer, "BEGIN IMMEDIATE", Migrations(kDialect), path));
  std::vector<std::unique_ptr<SqliteConnection>> readers;
  for (int i = 0; i < kNumReaders; ++i) {
    LWQ_ASSIGN_OR_RETURN(auto reader, SqliteConnection::Open(path, /*read_only=*/true));
    readers.push_back(std::move(reader));
  }
  state->readers = std::make_unique<ReaderPool>(std::move(readers));
  state->unclean_mark = mark;
  {
    MutexLock lock(&state->mu);
    state->writer = std::move(writer);
  }
  return std::unique_ptr<SqliteStore>(new SqliteStore(std::move(state)));
}

namespace {

absl::StatusOr<int64_t> VersionOf(SqliteConnection& db, const Write& write) {
  LWQ_ASSIGN_OR_RETURN(
      sqlite3_stmt * statement,
      db.Prepare(absl::StrCat("SELECT version FROM ", NameOf(write.table), " WHERE key=?")));
  BindText(statement, 1, write.record.key);
  LWQ_ASSIGN_OR_RETURN(const bool row, db.Step(statement));
  const int64_t version = row ? sqlite3_column_int64(statement, 0) : 0;
  sqlite3_reset(statement);
  return version;
}

absl::Status WriteRow(SqliteConnection& db, const Write& write) {
  if (write.expected_version) {
    LWQ_ASSIGN_OR_RETURN(const int64_t version, VersionOf(db, write));
    if (version != *write.expected_version) {
      return VersionConflict(write, version);
    }
  }
  if (write.check_only) return absl::OkStatus();
  if (write.remove) {
    LWQ_ASSIGN_OR_RETURN(
        sqlite3_stmt * statement,
        db.Prepare(absl::StrCat("DELETE FROM ", NameOf(write.table), " WHERE key=?")));
    BindText(statement, 1, write.record.key);
    return db.Step(statement).status();
  }
  LWQ_ASSIGN_OR_RETURN(
      sqlite3_stmt * statement,
      db.Prepare(absl::StrCat("INSERT INTO ", NameOf(write.table), " (", kRecordColumns,
                              ") VALUES (?,1,?,?,?,?,?) ON CONFLICT(key) DO UPDATE SET "
                              "version=version+1, state=excluded.state, tag=excluded.tag, "
                              "ord=excluded.ord, value=excluded.value, "
                              "tenant=excluded.tenant")));
  BindText(statement, 1, write.record.key);
  sqlite3_bind_int(statement, 2, write.record.state);
  BindText(statement, 3, write.record.tag);
  sqlite3_bind_int64(statement, 4, write.record.order);
  BindBlob(statement, 5, write.record.value);
  BindText(statement, 6, write.record.tenant);
  return db.Step(statement).status();
}

constexpr int kFirstTenant = 9;  // its parameter; those of further ones follow

std::string ListSql(Table table, const ListQuery& query) {
  std::string sql =
      absl::StrCat("SELECT ", kRecordColumns, " FROM ", NameOf(table), " WHERE ord>=?1");
  if (!query.key_prefix.empty()) absl::StrAppend(&sql, " AND key>=?2 AND key<?3");
  if (query.state) absl::StrAppend(&sql, " AND state=?4");
  if (query.tag) absl::StrAppend(&sql, " AND tag=?5");
  for (size_t i = 0; i < query.tenants.size(); ++i) {
    absl::StrAppend(&sql, i == 0 ? " AND tenant IN (?" : ",?", kFirstTenant + i);
  }
  if (!query.tenants.empty()) absl::StrAppend(&sql, ")");
  if (query.order == ListQuery::Order::kKeyAscending) {
    if (!query.after_key.empty()) absl::StrAppend(&sql, " AND key>?6");
    absl::StrAppend(&sql, " ORDER BY key LIMIT ?8");
  } else {
    absl::StrAppend(&sql, " AND (ord<?7 OR (ord=?7 AND key>?6)) ORDER BY ord DESC, key LIMIT ?8");
  }
  return sql;
}

absl::StatusOr<std::vector<Record>> ListRows(SqliteConnection& db, Table table,
                                             const ListQuery& query) {
  LWQ_ASSIGN_OR_RETURN(sqlite3_stmt * statement, db.Prepare(ListSql(table, query)));
  // Parameters that the text does not use are refused by the library, harmlessly.
  sqlite3_bind_int64(statement, 1, query.order_at_least);
  BindText(statement, 2, query.key_prefix);
  BindText(statement, 3, PrefixEnd(query.key_prefix));
  if (query.state) sqlite3_bind_int(statement, 4, *query.state);
  if (query.tag) BindText(statement, 5, *query.tag);
  BindText(statement, 6, query.after_key);
  sqlite3_bind_int64(statement, 7, query.after_order);
  sqlite3_bind_int(statement, 8, query.limit);
  for (size_t i = 0; i < query.tenants.size(); ++i) {
    BindText(statement, kFirstTenant + static_cast<int>(i), query.tenants[i]);
  }
  std::vector<Record> rows;
  while (true) {
    LWQ_ASSIGN_OR_RETURN(const bool row, db.Step(statement));
    if (!row) return rows;
    rows.push_back(RowOf(statement));
  }
}

absl::StatusOr<std::vector<Record>> GetRows(SqliteConnection& db, Table table,
                                            const std::vector<std::string>& keys) {
  std::vector<Record> rows;
  LWQ_ASSIGN_OR_RETURN(
      sqlite3_stmt * statement,
      db.Prepare(absl::StrCat("SELECT ", kRecordColumns, " FROM ", NameOf(table), " WHERE key=?")));
  for (const std::string& key : keys) {
    sqlite3_reset(statement);
    BindText(statement, 1, key);
    LWQ_ASSIGN_OR_RETURN(const bool row, db.Step(statement));
    if (row) rows.push_back(RowOf(statement));
  }
  sqlite3_reset(statement);
  return rows;
}

}  // namespace

absl::Status SqliteStore::Commit(const std::vector<Write>& writes) {
  LWQ_RETURN_IF_ERROR(CheckWrites(writes));
  MutexLock lock(&state_->mu);
  SqliteConnection& db = *state_->writer;
  LWQ_RETURN_IF_ERROR(db.Execute("BEGIN IMMEDIATE"));
  for (const Write& write : writes) {
    absl::Status status = WriteRow(db, write);
    if (!status.ok()) {
      db.Execute("ROLLBACK").IgnoreError();
      return status;
    }
  }
  Failpoint("sqlite.before_commit");
  absl::Status status = db.Execute("COMMIT");
  Failpoint("sqlite.after_commit");
  if (!status.ok()) db.Execute("ROLLBACK").IgnoreError();
  return status;
}

absl::StatusOr<std::vector<Record>> SqliteStore::GetMany(Table table,
                                                         const std::vector<std::string>& keys) {
  auto reader = state_->readers->Take();
  // One transaction, so that what one commit wrote is seen whole or not at all.
  absl::Status begun = reader->Execute("BEGIN");
  absl::StatusOr<std::vector<Record>> rows =
      begun.ok() ? GetRows(*reader, table, keys) : absl::StatusOr<std::vector<Record>>(begun);
  reader->Execute("COMMIT").IgnoreError();
  state_->readers->Return(std::move(reader));
  return rows;
}

absl::StatusOr<std::vector<Record>> SqliteStore::List(Table table, const ListQuery& query) {
  auto reader = state_->readers->Take();
  auto rows = ListRows(*reader, table, query);
  state_->readers->Return(std::move(reader));
  return rows;
}

}  // namespace lwq

#include "server/store/sqlite_connection.h"

#include "absl/strings/str_cat.h"
#include "base/private_path.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {

absl::StatusOr<std::unique_ptr<SqliteConnection>> SqliteConnection::Open(const std::string& path,
                                                                         bool read_only) {
  // SQLite asks the umask, and gives its logs the mode of the database. Records name people, files
  // and the hashes of tokens.
  if (!read_only) {
    if (absl::Status made = MakePrivateFile(path); !made.ok()) {
      return Failure(reasons::kStoreUnavailable, made.message());
    }
  }
  sqlite3* db = nullptr;
  const int flags =
      (read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) |
      SQLITE_OPEN_NOMUTEX;
  const int code = sqlite3_open_v2(path.c_str(), &db, flags, nullptr);
  auto connection = std::unique_ptr<SqliteConnection>(new SqliteConnection(db));
  if (code != SQLITE_OK) return connection->Error(absl::StrCat("opening ", path));
  LWQ_RETURN_IF_ERROR(connection->Execute("PRAGMA busy_timeout=5000"));
  return connection;
}

SqliteConnection::~SqliteConnection() {
  for (auto& [sql, statement] : statements_) sqlite3_finalize(statement);
  sqlite3_close(db_);
}

absl::Status SqliteConnection::Error(absl::string_view doing) {
  const int code = db_ == nullptr ? SQLITE_NOMEM : sqlite3_extended_errcode(db_);
  const std::string message = absl::StrCat(
      doing, ": ", db_ == nullptr ? "out of memory" : sqlite3_errmsg(db_), " (", code, ")");
  switch (code & 0xff) {
    case SQLITE_FULL:
      return Failure(reasons::kStoreFull, message);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Failure(reasons::kStoreCorrupt, message);
    default:
      return Failure(reasons::kStoreUnavailable, message);
  }
}

absl::Status SqliteConnection::Execute(const std::string& sql) {
  if (sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) return Error(sql);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::vector<std::string>>> SqliteConnection::Query(
    const std::string& sql) {
  LWQ_ASSIGN_OR_RETURN(sqlite3_stmt * statement, Prepare(sql));
  std::vector<std::vector<std::string>> rows;
  while (true) {
    LWQ_ASSIGN_OR_RETURN(const bool row, Step(statement));
    if (!row) return rows;
    std::vector<std::string>& columns = rows.emplace_back();
    for (int c = 0; c < sqlite3_column_count(statement); ++c) {
      columns.push_back(ColumnString(statement, c));
    }
  }
}

absl::StatusOr<sqlite3_stmt*> SqliteConnection::Prepare(const std::string& sql) {
  sqlite3_stmt*& statement = statements_[sql];
  if (statement == nullptr) {
    if (sqlite3_prepare_v3(db_, sql.c_str(), -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr) !=
        SQLITE_OK) {
      statements_.erase(sql);
      return Error(sql);
    }
  }
  sqlite3_reset(statement);
  sqlite3_clear_bindings(statement);
  return statement;
}

absl::StatusOr<bool> SqliteConnection::Step(sqlite3_stmt* statement) {
  const int code = sqlite3_step(statement);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) {
    sqlite3_reset(statement);
    return false;
  }
  absl::Status status = Error(sqlite3_sql(statement));
  sqlite3_reset(statement);
  return status;
}

absl::StatusOr<std::string> SqliteConnection::QueryText(const std::string& sql) {
  LWQ_ASSIGN_OR_RETURN(sqlite3_stmt * statement, Prepare(sql));
  LWQ_ASSIGN_OR_RETURN(const bool row, Step(statement));
  std::string text = row ? ColumnString(statement, 0) : "";
  sqlite3_reset(statement);
  return text;
}

void BindText(sqlite3_stmt* statement, int index, absl::string_view value) {
  sqlite3_bind_text(statement, index, value.data(), static_cast<int>(value.size()),
                    SQLITE_TRANSIENT);
}

void BindBlob(sqlite3_stmt* statement, int index, absl::string_view value) {
  // A null pointer would bind NULL, and an empty value is not NULL.
  sqlite3_bind_blob(statement, index, value.empty() ? "" : value.data(),
                    static_cast<int>(value.size()), SQLITE_TRANSIENT);
}

std::string ColumnString(sqlite3_stmt* statement, int column) {
  const void* data = sqlite3_column_blob(statement, column);
  const int size = sqlite3_column_bytes(statement, column);
  return data == nullptr ? std::string() : std::string(static_cast<const char*>(data), size);
}

}  // namespace lwq

// One SQLite connection and its prepared statements, as absl::Status. Used by sqlite_store.cc only.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/store/schema.h"

namespace lwq {

// Not thread-safe.
class SqliteConnection : public SqlSession {
 public:
  static absl::StatusOr<std::unique_ptr<SqliteConnection>> Open(const std::string& path,
                                                                bool read_only);
  ~SqliteConnection() override;
  SqliteConnection(const SqliteConnection&) = delete;
  SqliteConnection& operator=(const SqliteConnection&) = delete;

  // Statements without parameters and results.
  absl::Status Execute(const std::string& sql) override;
  absl::StatusOr<std::vector<std::vector<std::string>>> Query(const std::string& sql) override;
  // The statement, prepared once and reset; owned by the connection.
  absl::StatusOr<sqlite3_stmt*> Prepare(const std::string& sql);
  // True for a row, false at the end.
  absl::StatusOr<bool> Step(sqlite3_stmt* statement);
  // First column of the first row, as text; "" without a row.
  absl::StatusOr<std::string> QueryText(const std::string& sql);

 private:
  explicit SqliteConnection(sqlite3* db) : db_(db) {}
  absl::Status Error(absl::string_view doing);

  sqlite3* const db_;
  std::map<std::string, sqlite3_stmt*> statements_;
};

void BindText(sqlite3_stmt* statement, int index, absl::string_view value);
void BindBlob(sqlite3_stmt* statement, int index, absl::string_view value);
std::string ColumnString(sqlite3_stmt* statement, int column);

}  // namespace lwq

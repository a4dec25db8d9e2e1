// The tables of the SQL stores, as numbered steps that are applied once, in order. A step that a
// release has applied is never edited: its checksum is beside its number in the table schema_info.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq {

// Names of types, and what stands after a table's columns.
struct SqlDialect {
  const char* bytes;  // compared byte by byte
  const char* small;
  const char* large;
  const char* value;
  const char* table_end;
};

struct Migration {
  int number = 0;
  std::vector<std::string> statements;
};

std::vector<Migration> Migrations(const SqlDialect& dialect);
std::string ChecksumOf(const Migration& migration);

// One connection, as far as a migration needs it.
class SqlSession {
 public:
  virtual ~SqlSession() = default;
  // A statement without parameters and results.
  virtual absl::Status Execute(const std::string& sql) = 0;
  // Rows of columns as text.
  virtual absl::StatusOr<std::vector<std::vector<std::string>>> Query(const std::string& sql) = 0;
};

// Brings the schema to the last step, in one transaction that `begin` starts and that keeps other
// migrations out. FAILED_PRECONDITION "SCHEMA_TOO_NEW" when steps were applied that are not known
// here, "SCHEMA_CHANGED" when one was applied as something else; `where` names the store in
// messages.
absl::Status Migrate(SqlSession& session, const std::string& begin,
                     const std::vector<Migration>& migrations, absl::string_view where);

}  // namespace lwq

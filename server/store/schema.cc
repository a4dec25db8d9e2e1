#include "server/store/schema.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/failpoint.h"
#include "base/hash.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

void AddTable(const SqlDialect& d, absl::string_view name, Migration& migration) {
  migration.statements.push_back(absl::StrCat(
      "CREATE TABLE IF NOT EXISTS ", name, " (key ", d.bytes, " PRIMARY KEY NOT NULL, version ",
      d.large, " NOT NULL, state ", d.small, " NOT NULL, tag ", d.bytes, " NOT NULL, ord ", d.large,
      " NOT NULL, value ", d.value, " NOT NULL)", d.table_end));
  migration.statements.push_back(
      absl::StrCat("CREATE INDEX IF NOT EXISTS ", name, "_newest ON ", name, " (ord DESC, key)"));
}

// Rows that are there belong to the default tenant.
void AddTenants(const SqlDialect& d, Migration& migration) {
  for (const char* table : {"jobs", "tasks", "cache", "workers", "models", "datasets", "artifacts",
                            "events", "requests", "server", "leader", "tokens", "uploads"}) {
    migration.statements.push_back(absl::StrCat("ALTER TABLE ", table, " ADD COLUMN tenant ",
                                                d.bytes, " NOT NULL DEFAULT 'default'"));
  }
  for (const char* table : {"jobs", "datasets", "artifacts"}) {
    migration.statements.push_back(absl::StrCat(
        "CREATE INDEX IF NOT EXISTS ", table, "_by_tenant ON ", table, " (tenant, ord DESC, key)"));
  }
}

absl::Status Apply(SqlSession& session, const Migration& migration) {
  for (const std::string& statement : migration.statements) {
    LWQ_RETURN_IF_ERROR(session.Execute(statement));
  }
  return session.Execute(absl::StrCat("INSERT INTO schema_info (number, checksum) VALUES (",
                                      migration.number, ", '", ChecksumOf(migration), "')"));
}

absl::Status MigrateInTransaction(SqlSession& session, const std::vector<Migration>& migrations,
                                  absl::string_view where) {
  LWQ_RETURN_IF_ERROR(session.Execute(
      "CREATE TABLE IF NOT EXISTS schema_info (number INTEGER PRIMARY KEY NOT NULL, checksum TEXT "
      "NOT NULL)"));
  LWQ_ASSIGN_OR_RETURN(const auto rows,
                       session.Query("SELECT number, checksum FROM schema_info ORDER BY number"));
  if (rows.size() > migrations.size()) {
    return Failure(reasons::kSchemaTooNew,
                   absl::StrCat(where, " has schema ", rows.size(), ", this server knows ",
                                migrations.size(), ": run the newer lwq-server"));
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i][0] == absl::StrCat(migrations[i].number) &&
        rows[i][1] == ChecksumOf(migrations[i])) {
      continue;
    }
    return Failure(
        reasons::kSchemaChanged,
        absl::StrCat(where, ": step ", rows[i][0], " of the schema was applied as something else (",
                     rows[i][1].substr(0, 12), ") than this server's step ", migrations[i].number,
                     " (", ChecksumOf(migrations[i]).substr(0, 12),
                     "): run the lwq-server that made it"));
  }
  for (size_t i = rows.size(); i < migrations.size(); ++i) {
    LWQ_RETURN_IF_ERROR(Apply(session, migrations[i]));
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<Migration> Migrations(const SqlDialect& dialect) {
  Migration records{.number = 1};
  for (const char* table : {"jobs", "tasks", "cache", "workers", "models", "datasets", "artifacts",
                            "events", "requests", "server"}) {
    AddTable(dialect, table, records);
  }
  Migration leader{.number = 2};
  AddTable(dialect, "leader", leader);
  Migration tokens{.number = 3};
  AddTable(dialect, "tokens", tokens);
  Migration tenants{.number = 4};
  AddTable(dialect, "uploads", tenants);
  AddTenants(dialect, tenants);
  return {records, leader, tokens, tenants};
}

std::string ChecksumOf(const Migration& migration) {
  return Sha256Hex(absl::StrJoin(migration.statements, ";\n"));
}

absl::Status Migrate(SqlSession& session, const std::string& begin,
                     const std::vector<Migration>& migrations, absl::string_view where) {
  LWQ_RETURN_IF_ERROR(session.Execute(begin));
  absl::Status status = MigrateInTransaction(session, migrations, where);
  Failpoint("migrate.before_commit");
  if (status.ok()) status = session.Execute("COMMIT");
  Failpoint("migrate.after_commit");
  if (!status.ok()) session.Execute("ROLLBACK").IgnoreError();
  return status;
}

}  // namespace lwq

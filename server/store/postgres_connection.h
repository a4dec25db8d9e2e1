// One PostgreSQL connection as absl::Status. Used by postgres_store.cc only.
#pragma once

#include <libpq-fe.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/store/schema.h"

namespace lwq {

struct PgParam {
  static PgParam Int(int64_t value) { return {std::to_string(value), false}; }
  static PgParam Text(std::string value) { return {std::move(value), false}; }
  static PgParam Bytes(std::string value) { return {std::move(value), true}; }

  std::string value;
  bool binary = false;
};

struct PgStatement {
  std::string sql;
  std::vector<PgParam> params;
};

// Rows of a statement. Columns are read as what they are in SQL: BYTEA and TEXT by Bytes, INTEGER
// and BIGINT by Int.
class PgResult {
 public:
  explicit PgResult(PGresult* result) : result_(result) {}

  int num_rows() const { return PQntuples(result_.get()); }
  // Rows that the statement wrote or found.
  int64_t num_affected() const;
  std::string Bytes(int row, int column) const;
  int64_t Int(int row, int column) const;

 private:
  struct Clear {
    void operator()(PGresult* result) const { PQclear(result); }
  };
  std::unique_ptr<PGresult, Clear> result_;
};

// Not thread-safe. Errors: ABORTED "STORE_BUSY" when another transaction was in the way: the same
// again may succeed; UNAVAILABLE "STORE_UNAVAILABLE" when the server cannot be reached, does not
// answer, or takes no writes: is_lost() is then true, and nothing more can be done with it.
class PostgresConnection : public SqlSession {
 public:
  static absl::StatusOr<std::unique_ptr<PostgresConnection>> Open(const std::string& url);
  ~PostgresConnection() override;
  PostgresConnection(const PostgresConnection&) = delete;
  PostgresConnection& operator=(const PostgresConnection&) = delete;

  absl::StatusOr<PgResult> Run(const PgStatement& statement);
  // All in one exchange; results in the order of the statements. After the first that fails the
  // server skips the rest, and its error is returned.
  absl::StatusOr<std::vector<PgResult>> RunAll(absl::Span<const PgStatement> statements);

  absl::Status Execute(const std::string& sql) override;
  absl::StatusOr<std::vector<std::vector<std::string>>> Query(const std::string& sql) override;

  bool is_lost() const { return lost_; }
  // "database lwq at db.example:5432": no password is in it.
  const std::string& where() const { return where_; }

 private:
  explicit PostgresConnection(PGconn* connection);
  absl::Status Send(const PgStatement& statement);
  // The next result, null at the end of a statement's; UNAVAILABLE when it does not come in time.
  absl::StatusOr<PGresult*> NextResult();
  absl::StatusOr<std::vector<PgResult>> Collect(size_t num_statements);
  absl::Status ErrorOf(const PGresult* result);
  absl::Status Lost(absl::string_view why);

  PGconn* const connection_;
  std::string where_;
  bool lost_ = false;
};

}  // namespace lwq

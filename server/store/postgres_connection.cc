#include "server/store/postgres_connection.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

// A server that has not answered in this time is taken for gone. Longer than its own limit below,
// so that a slow statement is an error and no lost connection.
constexpr int kAnswerTimeoutMs = 15'000;
constexpr char kSessionSettings[] =
    "SET statement_timeout='10s'; SET lock_timeout='5s'; "
    "SET idle_in_transaction_session_timeout='20s'; SET client_min_messages='warning'";

absl::string_view SqlStateOf(const PGresult* result) {
  const char* state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  return state == nullptr ? "" : state;
}

std::string OneLine(absl::string_view message) {
  std::string line(absl::StripSuffix(message, "\n"));
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

absl::string_view Value(const char* value) { return value == nullptr ? "" : value; }

}  // namespace

int64_t PgResult::num_affected() const {
  int64_t affected = 0;
  return absl::SimpleAtoi(PQcmdTuples(result_.get()), &affected) ? affected : 0;
}

std::string PgResult::Bytes(int row, int column) const {
  return std::string(PQgetvalue(result_.get(), row, column),
                     static_cast<size_t>(PQgetlength(result_.get(), row, column)));
}

int64_t PgResult::Int(int row, int column) const {
  // Big-endian, of the type's size.
  const std::string bytes = Bytes(row, column);
  if (bytes.empty()) return 0;
  int64_t value = static_cast<signed char>(bytes[0]);
  for (size_t i = 1; i < bytes.size(); ++i) {
    value = static_cast<int64_t>((static_cast<uint64_t>(value) << 8) |
                                 static_cast<unsigned char>(bytes[i]));
  }
  return value;
}

PostgresConnection::PostgresConnection(PGconn* connection)
    : connection_(connection),
      where_(absl::StrCat("database ", Value(PQdb(connection)), " at ", Value(PQhost(connection)),
                          ":", Value(PQport(connection)))) {}

PostgresConnection::~PostgresConnection() { PQfinish(connection_); }

absl::StatusOr<std::unique_ptr<PostgresConnection>> PostgresConnection::Open(
    const std::string& url) {
  // What the URL says stands over what is before it. A standby of PostgreSQL's own is passed over:
  // the URL may name several hosts.
  const char* const keys[] = {"connect_timeout",
                              "keepalives_idle",
                              "keepalives_interval",
                              "keepalives_count",
                              "tcp_user_timeout",
                              "application_name",
                              "target_session_attrs",
                              "client_encoding",
                              "dbname",
                              nullptr};
  const char* const values[] = {"3",          "5",          "2",    "3",         "10000",
                                "lwq-server", "read-write", "UTF8", url.c_str(), nullptr};
  auto connection = std::unique_ptr<PostgresConnection>(
      new PostgresConnection(PQconnectdbParams(keys, values, /*expand_dbname=*/1)));
  PGconn* const raw = connection->connection_;
  if (raw == nullptr || PQstatus(raw) != CONNECTION_OK) {
    return connection->Lost(
        absl::StrCat("connecting: ", raw == nullptr ? "out of memory" : PQerrorMessage(raw)));
  }
  PQsetNoticeProcessor(
      raw, [](void*, const char*) {}, nullptr);
  LWQ_RETURN_IF_ERROR(connection->Execute(kSessionSettings));
  return connection;
}

absl::Status PostgresConnection::Lost(absl::string_view why) {
  lost_ = true;
  return Failure(reasons::kStoreUnavailable, absl::StrCat(where_, ": ", OneLine(why)));
}

absl::Status PostgresConnection::ErrorOf(const PGresult* result) {
  const absl::string_view state = SqlStateOf(result);
  const std::string text = PQresultErrorMessage(result);
  // Without a state it is libpq's own; 08 connection, 57P shutdown, 25006 a server that only reads.
  if (state.empty() || absl::StartsWith(state, "08") || absl::StartsWith(state, "57P") ||
      state == "25006" || PQstatus(connection_) != CONNECTION_OK) {
    return Lost(text);
  }
  const std::string message = absl::StrCat(where_, ": ", OneLine(text), " (", state, ")");
  // 40 serialization and deadlock, 55P03 a lock that did not come.
  if (absl::StartsWith(state, "40") || state == "55P03") {
    return Failure(reasons::kStoreBusy, message);
  }
  if (state == "53100") {
    return Failure(reasons::kStoreFull, message);
  }
  if (absl::StartsWith(state, "XX")) return Failure(reasons::kStoreCorrupt, message);
  return Failure(reasons::kStoreUnavailable, message);
}

absl::Status PostgresConnection::Send(const PgStatement& statement) {
  std::vector<const char*> values;
  std::vector<int> lengths, formats;
  for (const PgParam& param : statement.params) {
    values.push_back(param.value.data());
    lengths.push_back(static_cast<int>(param.value.size()));
    formats.push_back(param.binary ? 1 : 0);
  }
  const int sent = PQsendQueryParams(
      connection_, statement.sql.c_str(), static_cast<int>(values.size()), /*paramTypes=*/nullptr,
      values.data(), lengths.data(), formats.data(), /*resultFormat=*/1);
  return sent == 1 ? absl::OkStatus() : Lost(PQerrorMessage(connection_));
}

absl::StatusOr<PGresult*> PostgresConnection::NextResult() {
  while (PQisBusy(connection_)) {
    pollfd wait = {PQsocket(connection_), POLLIN, 0};
    const int ready = ::poll(&wait, 1, kAnswerTimeoutMs);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return Lost("no answer in 15 s");
    if (PQconsumeInput(connection_) == 0) return Lost(PQerrorMessage(connection_));
  }
  return PQgetResult(connection_);
}

absl::StatusOr<PgResult> PostgresConnection::Run(const PgStatement& statement) {
  LWQ_ASSIGN_OR_RETURN(std::vector<PgResult> results, RunAll({statement}));
  return std::move(results.front());
}

absl::StatusOr<std::vector<PgResult>> PostgresConnection::RunAll(
    absl::Span<const PgStatement> statements) {
  if (lost_) return Lost("the connection is lost");
  if (PQenterPipelineMode(connection_) != 1) return Lost(PQerrorMessage(connection_));
  for (const PgStatement& statement : statements) LWQ_RETURN_IF_ERROR(Send(statement));
  if (PQpipelineSync(connection_) != 1) return Lost(PQerrorMessage(connection_));
  absl::StatusOr<std::vector<PgResult>> results = Collect(statements.size());
  if (!lost_ && PQexitPipelineMode(connection_) != 1) return Lost(PQerrorMessage(connection_));
  return results;
}

absl::StatusOr<std::vector<PgResult>> PostgresConnection::Collect(size_t num_statements) {
  std::vector<PgResult> results;
  absl::Status first_error;
  for (size_t i = 0; i < num_statements; ++i) {
    while (true) {
      LWQ_ASSIGN_OR_RETURN(PGresult* const raw, NextResult());
      if (raw == nullptr) break;
      PgResult result(raw);
      const ExecStatusType status = PQresultStatus(raw);
      if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) {
        results.push_back(std::move(result));
      } else if (first_error.ok() && status != PGRES_PIPELINE_ABORTED) {
        first_error = ErrorOf(raw);
        if (lost_) return first_error;
      }
    }
  }
  LWQ_ASSIGN_OR_RETURN(PGresult* const sync, NextResult());
  PgResult end(sync);
  if (sync == nullptr || PQresultStatus(sync) != PGRES_PIPELINE_SYNC) {
    return Lost("the server and this client are out of step");
  }
  if (!first_error.ok()) return first_error;
  return results;
}

absl::Status PostgresConnection::Execute(const std::string& sql) {
  if (lost_) return Lost("the connection is lost");
  if (PQsendQuery(connection_, sql.c_str()) != 1) return Lost(PQerrorMessage(connection_));
  absl::Status status;
  while (true) {
    LWQ_ASSIGN_OR_RETURN(PGresult* const raw, NextResult());
    if (raw == nullptr) return status;
    PgResult result(raw);
    const ExecStatusType code = PQresultStatus(raw);
    if (code != PGRES_COMMAND_OK && code != PGRES_TUPLES_OK && status.ok()) status = ErrorOf(raw);
    if (lost_) return status;
  }
}

absl::StatusOr<std::vector<std::vector<std::string>>> PostgresConnection::Query(
    const std::string& sql) {
  if (lost_) return Lost("the connection is lost");
  // The text protocol, so that every column comes as text.
  if (PQsendQuery(connection_, sql.c_str()) != 1) return Lost(PQerrorMessage(connection_));
  std::vector<std::vector<std::string>> rows;
  absl::Status status;
  while (true) {
    LWQ_ASSIGN_OR_RETURN(PGresult* const raw, NextResult());
    if (raw == nullptr) break;
    PgResult result(raw);
    if (PQresultStatus(raw) != PGRES_TUPLES_OK && status.ok()) status = ErrorOf(raw);
    if (lost_) return status;
    for (int r = 0; status.ok() && r < result.num_rows(); ++r) {
      std::vector<std::string>& columns = rows.emplace_back();
      for (int c = 0; c < PQnfields(raw); ++c) columns.push_back(result.Bytes(r, c));
    }
  }
  if (!status.ok()) return status;
  return rows;
}

}  // namespace lwq

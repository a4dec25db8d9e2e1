// Records in PostgreSQL 15 or later, for several servers of which one is the leader
// (server/store/leadership.h). Rows and conditions are those of SQLite; keys and tags are BYTEA, so
// that they sort by their bytes whatever the database's locale.
// docs/decisions/0009-postgresql-behind-the-store.md.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "server/store/store.h"

namespace lwq {

class PostgresStore : public Store {
 public:
  // `url`: postgresql://user@host:port/database?..., as libpq reads it; several hosts may stand in
  // it. Makes or migrates the schema: errors are those of Migrate. UNAVAILABLE "STORE_UNAVAILABLE".
  // A connection that goes later is made again by the call that needs it. `clock` outlives the
  // store.
  static absl::StatusOr<std::unique_ptr<PostgresStore>> Open(const std::string& url,
                                                             Clock* clock = Clock::Real());
  ~PostgresStore() override;

  // Each commit holds its rows by their locks (READ COMMITTED and a condition in every statement):
  // what was checked stays so until it is done. Tries again by itself when another transaction was
  // in the way, and asks the server for the outcome when the connection goes during COMMIT.
  absl::Status Commit(const std::vector<Write>& writes) override;
  absl::StatusOr<std::vector<Record>> GetMany(Table table,
                                              const std::vector<std::string>& keys) override;
  absl::StatusOr<std::vector<Record>> List(Table table, const ListQuery& query) override;
  absl::string_view name() const override { return "postgresql"; }
  bool shared() const override { return true; }

 private:
  class Pool;
  PostgresStore(std::unique_ptr<Pool> pool, Clock* clock);
  // Commit, once. ABORTED "STORE_BUSY": nothing was written, and the same again may succeed.
  absl::Status TryCommit(const std::vector<Write>& writes);
  // What became of the transaction `xid`: OK when it is committed, "STORE_BUSY" when it is not,
  // UNKNOWN "STORE_UNCERTAIN".
  absl::Status OutcomeOf(const std::string& xid);

  const std::unique_ptr<Pool> pool_;
  Clock* const clock_;
};

}  // namespace lwq

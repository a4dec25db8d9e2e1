// The store of a single server: one SQLite file in WAL mode, flushed at every commit.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/store/store.h"

namespace lwq {

class SqliteStore : public Store {
 public:
  // Opens or makes DIRECTORY/lwq.db under the lock file DIRECTORY/lock, which another server may
  // not hold: FAILED_PRECONDITION "STORE_LOCKED". Errors of the schema are those of Migrate;
  // DATA_LOSS "STORE_CORRUPT" when the check after an unclean stop fails, or a restore into the
  // directory was not finished.
  static absl::StatusOr<std::unique_ptr<SqliteStore>> Open(const std::string& directory);
  ~SqliteStore() override;

  absl::Status Commit(const std::vector<Write>& writes) override;
  absl::StatusOr<std::vector<Record>> GetMany(Table table,
                                              const std::vector<std::string>& keys) override;
  absl::StatusOr<std::vector<Record>> List(Table table, const ListQuery& query) override;
  absl::string_view name() const override { return "sqlite"; }
  bool shared() const override { return false; }

 private:
  struct State;
  explicit SqliteStore(std::unique_ptr<State> state);
  const std::unique_ptr<State> state_;
};

}  // namespace lwq

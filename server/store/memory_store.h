// A store that forgets everything when it goes: for tests, and the model the conformance suite
// holds the others against.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "server/store/store.h"

namespace lwq {

class MemoryStore : public Store {
 public:
  absl::Status Commit(const std::vector<Write>& writes) override;
  absl::StatusOr<std::vector<Record>> GetMany(Table table,
                                              const std::vector<std::string>& keys) override;
  absl::StatusOr<std::vector<Record>> List(Table table, const ListQuery& query) override;
  absl::string_view name() const override { return "memory"; }
  bool shared() const override { return false; }

 private:
  using Rows = std::map<std::string, Record>;

  mutable Mutex mu_;
  std::array<Rows, kNumTables> tables_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lwq

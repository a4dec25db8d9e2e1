// Moves all records from one store to another, SQLite to PostgreSQL above all.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "server/store/store.h"

namespace lwq {

struct StoreCopyReport {
  int64_t num_records = 0;
  std::string sha256;  // of all records of all tables, in their order
};

// Copies every table but the leader's, which is the business of the servers of one store, and then
// reads both again: DATA_LOSS "COPY_DIFFERS" unless they hold the same. Versions start at 1.
// FAILED_PRECONDITION "STORE_NOT_EMPTY" unless `to` holds nothing, which includes a copy that was
// cut short. No server may run on either.
absl::StatusOr<StoreCopyReport> CopyStore(Store& from, Store& to);

}  // namespace lwq

// The store seam: named tables of records with optimistic versions, and commits that are all or
// nothing. Records are serialized protos; the few columns that lists filter by stand beside them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq {

// Durable names: kTableNames in store.cc.
enum class Table {
  kJobs,
  kTasks,
  kCache,
  kWorkers,
  kModels,
  kDatasets,
  kArtifacts,
  kEvents,
  kRequests,
  kServer,
};
inline constexpr int kNumTables = 10;
absl::string_view NameOf(Table table);

struct Record {
  std::string key;
  std::string value;
  int64_t version = 0;  // 1 at the first write, +1 at each further one
  int32_t state = 0;    // what lists filter by; its meaning is the table's
  std::string tag;
  int64_t order = 0;  // what lists sort by: creation, microseconds
};

struct Write {
  Table table;
  Record record;        // version is ignored
  bool remove = false;  // of record.key; no error when it is not there
  // The version that must be there: 0 for none yet. Unset: whatever is there is replaced.
  std::optional<int64_t> expected_version;
};

struct ListQuery {
  enum class Order { kKeyAscending, kNewestFirst };
  Order order = Order::kKeyAscending;
  std::string key_prefix;
  std::optional<int32_t> state;
  std::optional<std::string> tag;
  int64_t order_at_least = 0;
  // Rows after this one in the order asked for. With kNewestFirst both are read.
  std::string after_key;
  int64_t after_order = INT64_MAX;
  int limit = 1000;
};

// Thread-safe. Errors: UNAVAILABLE "STORE_UNAVAILABLE" when the medium fails, RESOURCE_EXHAUSTED
// "STORE_FULL" when it is full.
class Store {
 public:
  virtual ~Store() = default;

  // All writes or none. ABORTED "VERSION_CONFLICT" when an expected version is not there. After OK
  // the writes survive a power cut.
  virtual absl::Status Commit(const std::vector<Write>& writes) = 0;
  // NOT_FOUND.
  virtual absl::StatusOr<Record> Get(Table table, const std::string& key) = 0;
  // Those that are there, in any order.
  virtual absl::StatusOr<std::vector<Record>> GetMany(Table table,
                                                      const std::vector<std::string>& keys) = 0;
  virtual absl::StatusOr<std::vector<Record>> List(Table table, const ListQuery& query) = 0;

  // "sqlite", "memory".
  virtual absl::string_view name() const = 0;
};

}  // namespace lwq

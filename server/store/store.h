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
#include "server/store/tenant.h"

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
  kLeader,
  kTokens,
  kUploads,
};
inline constexpr int kNumTables = 13;
absl::string_view NameOf(Table table);

struct Record {
  std::string key;  // text; sorted by its bytes
  std::string value;
  int64_t version = 0;  // 1 at the first write, +1 at each further one
  int32_t state = 0;    // what lists filter by; its meaning is the table's
  std::string tag;
  int64_t order = 0;  // what lists sort by: creation, microseconds
  std::string tenant = kDefaultTenant;
};

struct Write {
  Table table;
  Record record;        // version is ignored
  bool remove = false;  // of record.key; no error when it is not there
  // Nothing is written: the commit is refused unless the expected version is there, and until it is
  // done nobody can change that.
  bool check_only = false;
  // The version that must be there: 0 for none yet. Unset: whatever is there is replaced. Removing
  // and checking take no 0: not every store can hold on to what is absent.
  std::optional<int64_t> expected_version;
};
// INVALID_ARGUMENT "WRITE_INVALID" for what no store takes.
absl::Status CheckWrites(const std::vector<Write>& writes);
absl::Status VersionConflict(const Write& write, int64_t found);

struct ListQuery {
  enum class Order { kKeyAscending, kNewestFirst };
  Order order = Order::kKeyAscending;
  std::string key_prefix;
  std::optional<int32_t> state;
  std::optional<std::string> tag;
  std::vector<std::string> tenants;  // empty: of all
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

  // All writes or none, in their order, each seeing those before it. ABORTED "VERSION_CONFLICT"
  // when an expected version is not there. After OK the writes survive a power cut; after an error
  // none of them is there, but for UNKNOWN "STORE_UNCERTAIN": the connection went at the last
  // moment, and whoever keeps records in memory has to read them again.
  virtual absl::Status Commit(const std::vector<Write>& writes) = 0;
  // NOT_FOUND.
  virtual absl::StatusOr<Record> Get(Table table, const std::string& key);
  // Those that are there, in any order, all as of one moment.
  virtual absl::StatusOr<std::vector<Record>> GetMany(Table table,
                                                      const std::vector<std::string>& keys) = 0;
  // As of one moment; two pages are of two.
  virtual absl::StatusOr<std::vector<Record>> List(Table table, const ListQuery& query) = 0;

  // "sqlite", "postgresql", "memory".
  virtual absl::string_view name() const = 0;
  // Whether other processes can write at the same time: servers on it need a leader.
  virtual bool shared() const = 0;
};

}  // namespace lwq

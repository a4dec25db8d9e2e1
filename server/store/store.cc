#include "server/store/store.h"

namespace lwq {
namespace {

constexpr absl::string_view kTableNames[kNumTables] = {
    "jobs",     "tasks",     "cache",  "workers",  "models",
    "datasets", "artifacts", "events", "requests", "server"};

}  // namespace

absl::string_view NameOf(Table table) { return kTableNames[static_cast<int>(table)]; }

}  // namespace lwq

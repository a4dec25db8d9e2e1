// Changes of the state machine as writes of the store: which table, which key, which columns.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "server/dispatch/dispatch_state.h"
#include "server/store/store.h"

namespace lwq {

std::vector<Write> ToWrites(const Changes& changes);

// Key of an event; events of a job sort by number.
std::string EventKey(const std::string& job, int64_t seq);
std::string EventPrefix(const std::string& job);

// DATA_LOSS "STORE_CORRUPT".
template <typename T>
absl::StatusOr<T> ParseRecord(Table table, const Record& row) {
  T message;
  if (!message.ParseFromString(row.value)) {
    return Failure(reasons::kStoreCorrupt,
                   absl::StrCat("record ", row.key, " of ", NameOf(table), " is not readable"));
  }
  return message;
}

int64_t ToMicros(const google::protobuf::Timestamp& time);

}  // namespace lwq

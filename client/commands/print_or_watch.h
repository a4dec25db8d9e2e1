// Tables that are printed once, or with --watch again whenever they change.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "client/commands/command.h"
#include "client/session.h"
#include "google/protobuf/message.h"
#include "proto/lwq/v1/admin_service.pb.h"
#include "proto/lwq/v1/job_service.pb.h"

namespace lwq::client {

inline constexpr FlagDef kWatchFlag = {
    "watch", "", "print it again when it changes, until Ctrl-C; redrawn on a terminal"};

struct Shown {
  std::string text;  // a table or JSON
  // The same without what changes while nothing happens: ages, and what remains.
  std::string without_times;
};

// Prints what `look` gives: once, or again with --watch whenever it changes. On a terminal ages are
// redrawn as well; a pipe or a log gets no line for them.
absl::StatusOr<int> PrintOrWatch(const Invocation& invocation, Session* session,
                                 const std::function<absl::StatusOr<Shown>()>& look);

// Takes out what `without_times` lacks.
void ClearTimes(v1::Job* job);
void ClearTimes(v1::TaskStatus* task);
void ClearTimes(v1::Worker* worker);

// The message as JSON, on lines of its own.
absl::StatusOr<std::string> JsonText(const google::protobuf::Message& message);

}  // namespace lwq::client

// Tables that are printed once, or with --watch again whenever they change.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "client/commands/command.h"
#include "client/session.h"
#include "google/protobuf/message.h"

namespace lwq::client {

inline constexpr FlagDef kWatchFlag = {
    "watch", "", "print it again when it changes, until Ctrl-C; redrawn on a terminal"};

// Prints what `text` gives, a table or JSON: once, or again and again with --watch.
absl::StatusOr<int> PrintOrWatch(const Invocation& invocation, Session* session,
                                 const std::function<absl::StatusOr<std::string>()>& text);

// The message as JSON, on lines of its own.
absl::StatusOr<std::string> JsonText(const google::protobuf::Message& message);

}  // namespace lwq::client

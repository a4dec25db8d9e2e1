// backup and restore: of what the own server keeps.
#include <array>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/commands/command.h"
#include "client/embedded.h"
#include "client/errors.h"
#include "client/interrupt.h"
#include "client/server_program.h"
#include "client/session.h"
#include "client/size_text.h"

namespace lwq::client {
namespace {

absl::StatusOr<EmbeddedPaths> OwnPaths(const Flags& flags) {
  LWQ_ASSIGN_OR_RETURN(const std::string data, DataDirectory(flags.Get("data-dir")));
  return EmbeddedPaths::Of(data);
}

// A server that is named keeps its files on a machine that lwqctl does not see.
absl::Status CheckOwn(const Flags& flags, const std::string& verb, const char* there) {
  if (flags.Has("data-dir") && !flags.Has("server") && !flags.Has("context")) {
    return absl::OkStatus();
  }
  LWQ_ASSIGN_OR_RETURN(const Connection connection, ResolveConnection(flags));
  if (connection.server.empty()) return absl::OkStatus();
  return Failure(reasons::kUsage,
                 absl::StrCat("`", verb, "` is of the own server's --data-dir, and ",
                              LogSafe(connection.origin), " names ", LogSafe(connection.server),
                              "; on that machine: lwq-server ", there));
}

absl::StatusOr<int> Print(const Invocation& invocation, const char* done,
                          const std::string& result) {
  if (invocation.flags.Has("json")) {
    *invocation.out << result << "\n";
    return kExitOk;
  }
  const nlohmann::json json = nlohmann::json::parse(result, nullptr, /*allow_exceptions=*/false);
  const std::vector<std::string> missing = json.value("missing", std::vector<std::string>());
  *invocation.out << done << " " << FormatCount(json.value("records", int64_t{0}))
                  << " records and " << FormatCount(json.value("blobs", int64_t{0})) << " blobs of "
                  << FormatBytes(json.value("blob_bytes", int64_t{0})) << "\n";
  if (!missing.empty()) {
    *invocation.err << "warning: " << missing.size()
                    << " blobs that records name are missing in the backup, "
                    << LogSafe(missing.front())
                    << " among them: what made them runs again when it is needed\n";
  }
  return kExitOk;
}

absl::StatusOr<int> BackUp(Invocation& invocation) {
  LWQ_RETURN_IF_ERROR(CheckOwn(invocation.flags, "backup", "backup DATA_DIR DIR"));
  LWQ_ASSIGN_OR_RETURN(const EmbeddedPaths paths, OwnPaths(invocation.flags));
  CatchInterrupts();
  LWQ_ASSIGN_OR_RETURN(
      const std::string result,
      RunServerProgram({"backup", paths.server_data, invocation.arguments[0]}, CheckInterrupted));
  return Print(invocation, "backed up", result);
}

absl::StatusOr<int> Restore(Invocation& invocation) {
  LWQ_RETURN_IF_ERROR(CheckOwn(invocation.flags, "restore", "restore DIR DATA_DIR"));
  LWQ_ASSIGN_OR_RETURN(const EmbeddedPaths paths, OwnPaths(invocation.flags));
  CatchInterrupts();
  LWQ_ASSIGN_OR_RETURN(
      const std::string result,
      RunServerProgram({"restore", invocation.arguments[0], paths.server_data}, CheckInterrupted));
  return Print(invocation, "restored", result);
}

constexpr std::array<Advice, 2> kBackupAdvice = {{
    {"STORAGE_FULL", "make room, and give the same command again: what was copied stays"},
    {"OUTPUT_EXISTS", "give a directory that is new or empty: each backup has its own"},
}};
constexpr std::array<Advice, 2> kRestoreAdvice = {{
    {"OUTPUT_EXISTS", "give a --data-dir that is new or empty; what is in this one is kept"},
    {"STORE_CORRUPT", "take another backup: lwqctl restore DIR"},
}};

}  // namespace

extern const CommandDef kBackupCommand, kRestoreCommand;
constinit const CommandDef kBackupCommand = {
    .name = "backup",
    .arguments = "DIR",
    .summary = "Copies what the own server keeps to a new directory; jobs go on meanwhile.",
    .examples =
        "  lwqctl backup /backups/monday\n"
        "  lwq-server backup /data /backups/monday      # of another server, where it runs\n",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = BackUp,
    .advice = kBackupAdvice,
};
constinit const CommandDef kRestoreCommand = {
    .name = "restore",
    .arguments = "DIR",
    .summary = "Makes a new --data-dir of a backup.",
    .examples =
        "  lwqctl restore /backups/monday --data-dir /data/lwq\n"
        "  lwqctl up --data-dir /data/lwq\n",
    .flags = {},
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 1,
    .run = Restore,
    .advice = kRestoreAdvice,
};

}  // namespace lwq::client

#include "server/backup_command.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/failure.h"
#include "base/log.h"
#include "base/reasons.h"
#include "server/backup/backup.h"

namespace lwq {
namespace {

constexpr int kExitIo = 74;
constexpr int kExitConfiguration = 78;

int Fail(const std::string& command, const absl::Status& status, bool as_json) {
  const std::string reason = ReasonOf(status);
  if (as_json) {
    const nlohmann::json error = {{"reason", reason},
                                  {"code", static_cast<int>(status.code())},
                                  {"message", std::string(status.message())}};
    std::cout << nlohmann::json{{"error", error}}.dump() << "\n";
  } else {
    std::cerr << "lwq-server " << command << ": " << LogSafe(status.message()) << " (" << reason
              << ")\n";
  }
  const bool wrong_question =
      (absl::IsNotFound(status) && !HasReason(status, reasons::kBlobMissing)) ||
      absl::IsAlreadyExists(status) || absl::IsInvalidArgument(status);
  return wrong_question ? kExitConfiguration : kExitIo;
}

int Print(const std::string& verb, const BackupReport& report, bool as_json) {
  const std::string newest = report.newest_job == absl::InfinitePast()
                                 ? ""
                                 : absl::FormatTime(report.newest_job, absl::UTCTimeZone());
  if (as_json) {
    std::cout << nlohmann::json{{"records", report.num_records},
                                {"blobs", report.num_blobs},
                                {"blob_bytes", report.blob_bytes},
                                {"newest_job", newest},
                                {"missing", report.missing}}
                     .dump()
              << "\n";
    return 0;
  }
  std::cout << verb << " " << report.num_records << " records and " << report.num_blobs
            << " blobs of " << report.blob_bytes << " bytes";
  if (!newest.empty()) std::cout << "; the newest job was submitted at " << newest;
  std::cout << "\n";
  if (!report.missing.empty()) {
    std::cerr << "warning: " << report.missing.size()
              << " blobs that records name are missing, as the backup's backup.json says:\n";
  }
  for (const std::string& digest : report.missing) std::cerr << "  " << digest << "\n";
  return 0;
}

}  // namespace

int RunBackupCommand(int argc, char** argv) {
  const std::string command = argv[0];
  const bool backs_up = command == "backup";
  CLI::App app(backs_up ? "lwq-server backup: records and blobs of a server, which may run"
                        : "lwq-server restore: makes a data directory of a backup");
  std::string from, to;
  BackupOptions options;
  bool as_json = false;
  app.add_option("from", from, backs_up ? "the server's --data-dir" : "the backup")->required();
  app.add_option("to", to, backs_up ? "new directory of the backup" : "new or empty --data-dir")
      ->required();
  if (backs_up) {
    app.add_option("--blobs", options.blobs, "the server's --blobs, where that is another folder");
  }
  app.add_flag("--json", as_json, "the result, or what went wrong, as JSON on stdout");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : kExitConfiguration;
  }
  InitLogging("lwq-server", LogFormat::kText, "warn");
  const absl::StatusOr<BackupReport> report =
      backs_up ? BackUp(from, to, options) : Restore(from, to);
  if (!report.ok()) return Fail(command, report.status(), as_json);
  const absl::Status whole = backs_up ? CheckNoneMissing(*report, to) : absl::OkStatus();
  if (!whole.ok()) return Fail(command, whole, as_json);
  return Print(backs_up ? "backed up" : "restored", *report, as_json);
}

}  // namespace lwq

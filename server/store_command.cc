#include "server/store_command.h"

#include <CLI/CLI.hpp>
#include <iostream>

#include "absl/status/status.h"
#include "base/failure.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "server/store/open_store.h"
#include "server/store/store_copy.h"

namespace lwq {
namespace {

absl::StatusOr<StoreCopyReport> Copy(const std::string& from_url, const std::string& to_url) {
  LWQ_ASSIGN_OR_ANNOTATE(auto from, OpenStore(from_url), "opening the source");
  LWQ_ASSIGN_OR_ANNOTATE(auto to, OpenStore(to_url), "opening the target");
  return CopyStore(*from, *to);
}

}  // namespace

int RunStoreCommand(int argc, char** argv) {
  CLI::App app("lwq-server store: moves the records of a stopped server");
  std::string from, to;
  CLI::App* copy = app.add_subcommand("copy", "copies all records, and compares the two");
  copy->add_option("from", from, "folder or URL of the store to read")->required();
  copy->add_option("to", to, "folder or URL of a store without records")->required();
  app.require_subcommand(1);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 78;
  }
  const absl::StatusOr<StoreCopyReport> report = Copy(from, to);
  if (!report.ok()) {
    std::cerr << "lwq-server store copy: " << LogSafe(report.status().message()) << " ("
              << ReasonOf(report.status()) << ")\n";
    return absl::IsUnavailable(report.status()) || absl::IsDataLoss(report.status()) ? 74 : 78;
  }
  std::cout << "copied and compared " << report->num_records << " records, sha256 "
            << report->sha256 << "\n";
  return 0;
}

}  // namespace lwq

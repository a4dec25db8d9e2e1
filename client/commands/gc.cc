// gc: deletes what the server no longer has to keep.
#include <array>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/session.h"
#include "client/size_text.h"
#include "client/table.h"

namespace lwq::client {
namespace {

constexpr std::array<FlagDef, 1> kFlags = {{
    {"dry-run", "", "say what would go, and delete nothing"},
}};

absl::StatusOr<int> Run(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  v1::CollectGarbageRequest request;
  request.set_dry_run(invocation.flags.Has("dry-run"));
  LWQ_ASSIGN_OR_RETURN(const v1::CollectGarbageResponse result,
                       session->client()->CollectGarbage(request));
  if (invocation.flags.Has("json")) return PrintJson(invocation, result);
  Table table({request.dry_run() ? "WOULD GO" : "DELETED", ">COUNT", ">BYTES"});
  table.AddRow({"jobs", FormatCount(result.jobs()), ""});
  table.AddRow({"artifacts", FormatCount(result.artifacts()), ""});
  table.AddRow({"cached results", FormatCount(result.cache_entries()), ""});
  table.AddRow({"request ids", FormatCount(result.requests()), ""});
  table.AddRow({"blobs", FormatCount(result.blobs()), FormatCount(result.blob_bytes())});
  table.AddRow(
      {"kept: needed", FormatCount(result.kept_blobs()), FormatCount(result.kept_blob_bytes())});
  table.AddRow({"kept: used lately", FormatCount(result.grace_blobs()),
                FormatCount(result.grace_blob_bytes())});
  *invocation.out << table.Text();
  return kExitOk;
}

}  // namespace

extern const CommandDef kGcCommand;
constinit const CommandDef kGcCommand = {
    .name = "gc",
    .arguments = "",
    .summary = "Deletes records past the server's retention, and blobs that nothing needs.",
    .examples = "  lwqctl gc --dry-run\n",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 0,
    .most_arguments = 0,
    .run = Run,
};

}  // namespace lwq::client

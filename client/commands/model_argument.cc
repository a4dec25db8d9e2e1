#include "client/commands/model_argument.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/log.h"
#include "base/model_path.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/embedded.h"
#include "client/hub/hub_download.h"
#include "client/interrupt.h"
#include "client/job_display.h"
#include "client/session.h"
#include "client/size_text.h"

namespace lwq::client {

absl::StatusOr<std::string> ModelDirectory(const Invocation& invocation, const std::string& model) {
  LWQ_ASSIGN_OR_RETURN(const Connection connection, ResolveConnection(invocation.flags));
  const bool server_elsewhere = !connection.server.empty();
  if (IsModelPath(model)) {
    if (server_elsewhere || !IsDirectory(model) || FileExists(JoinPath(model, "config.json"))) {
      return model;
    }
    return Failure(reasons::kModelNotFound,
                   absl::StrCat("the directory ", LogSafe(model), " has no config.json"));
  }
  if (absl::StartsWith(model, "/") && server_elsewhere) return model;
  if (!IsHubName(model)) {
    return Failure(reasons::kModelNotFound,
                   absl::StrCat("there is no model directory or GGUF file ", LogSafe(model),
                                "; a model of a hub is named hf://ORGANIZATION/NAME"));
  }
  LWQ_ASSIGN_OR_RETURN(const HubName name, ParseHubName(model));
  LWQ_ASSIGN_OR_RETURN(const std::string data, DataDirectory(invocation.flags.Get("data-dir")));
  CatchInterrupts();
  std::ostream* const err = invocation.err;
  const bool terminal = StderrIsTerminal();
  int shown = -1;
  HubOptions options = HubOptionsFromEnvironment(JoinPath(data, "models"));
  options.may_go_on = CheckInterrupted;
  options.note = [err](const std::string& text) { *err << text << "\n"; };
  options.progress = [&](int64_t done, int64_t total) {
    const int percent = total > 0 ? static_cast<int>(100 * done / total) : 100;
    // In a log, every tenth of the way is enough.
    const int step = terminal ? 1 : 10;
    if (percent / step == shown / step && shown >= 0) return;
    shown = percent;
    *err << (terminal ? "\r" : "")
         << absl::StrFormat("downloading %s  %3d%%  %s of %s", name.Text(), percent,
                            FormatBytes(done), FormatBytes(total))
         << (terminal ? "" : "\n") << std::flush;
  };
  absl::StatusOr<std::string> directory = DownloadModel(name, options);
  if (terminal && shown >= 0) *err << "\n";
  return directory;
}

}  // namespace lwq::client

#include "client/contexts.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace lwq::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMostBytes = 1 << 20;

absl::Status Invalid(const std::string& path, absl::string_view why) {
  return Failure(reasons::kContextsInvalid, absl::StrCat("reading ", path, ": ", why));
}

std::string TextAt(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

}  // namespace

absl::StatusOr<Context> Contexts::Find(const std::string& name) const {
  const auto found = all.find(name);
  if (found != all.end()) return found->second;
  std::string names;
  for (const auto& [known, context] : all)
    absl::StrAppend(&names, names.empty() ? "" : ", ", known);
  return Failure(reasons::kContextUnknown,
                 absl::StrCat("there is no context \"", LogSafe(name), "\"; ",
                              names.empty() ? "none was added yet" : "there are ", names));
}

std::string ConfigDirectory() {
  const char* config = ::getenv("XDG_CONFIG_HOME");
  if (config != nullptr && *config == '/') return JoinPath(config, "lwq");
  const char* home = ::getenv("HOME");
  return home != nullptr && *home == '/' ? JoinPath(home, ".config/lwq") : "";
}

std::string ContextsPath() {
  const std::string directory = ConfigDirectory();
  return directory.empty() ? "" : JoinPath(directory, "contexts.json");
}

absl::StatusOr<Contexts> ReadContexts(const std::string& path) {
  Contexts contexts;
  if (path.empty() || !FileExists(path)) return contexts;
  LWQ_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMostBytes));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Invalid(path, "it is no JSON object");
  contexts.current = TextAt(json, "current");
  const auto all = json.find("contexts");
  if (all == json.end()) return contexts;
  if (!all->is_object()) return Invalid(path, "\"contexts\" is no object");
  for (const auto& [name, value] : all->items()) {
    if (!value.is_object() || TextAt(value, "server").empty()) {
      return Invalid(path, absl::StrCat("context \"", LogSafe(name), "\" has no server"));
    }
    contexts.all[name] = {.server = TextAt(value, "server"),
                          .tls = {.ca_file = TextAt(value, "tls_ca"),
                                  .cert_file = TextAt(value, "tls_cert"),
                                  .key_file = TextAt(value, "tls_key")},
                          .token_file = TextAt(value, "token_file")};
  }
  return contexts;
}

absl::Status WriteContexts(const std::string& path, const Contexts& contexts) {
  if (path.empty()) {
    return Failure(reasons::kConfigDirectory,
                   "neither HOME nor XDG_CONFIG_HOME says where settings are kept");
  }
  LWQ_RETURN_IF_ERROR(MakeDirectories(Dirname(Dirname(path))));
  if (::mkdir(Dirname(path).c_str(), 0700) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("making ", Dirname(path)));
  }
  Json json;
  json["current"] = contexts.current;
  json["contexts"] = Json::object();
  for (const auto& [name, context] : contexts.all) {
    Json one;
    one["server"] = context.server;
    if (!context.tls.ca_file.empty()) one["tls_ca"] = context.tls.ca_file;
    if (!context.tls.cert_file.empty()) one["tls_cert"] = context.tls.cert_file;
    if (!context.tls.key_file.empty()) one["tls_key"] = context.tls.key_file;
    if (!context.token_file.empty()) one["token_file"] = context.token_file;
    json["contexts"][name] = std::move(one);
  }
  const std::string text =
      absl::StrCat(json.dump(2, ' ', false, Json::error_handler_t::replace), "\n");
  // Made with the rights it keeps: there is no moment in which others may read it.
  const mode_t before = ::umask(0077);
  const absl::Status written = WriteFileAtomically(path, text);
  ::umask(before);
  LWQ_RETURN_IF_ERROR(written);
  if (::chmod(path.c_str(), 0600) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("restricting ", path));
}

}  // namespace lwq::client

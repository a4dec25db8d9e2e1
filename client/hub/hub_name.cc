#include "client/hub/hub_name.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/log.h"
#include "base/reasons.h"

namespace lwq::client {
namespace {

constexpr absl::string_view kScheme = "hf://";
constexpr size_t kLongestPart = 96;

// As hubs allow them, and safe in a URL and as a file's name: no path can be made of one.
bool IsPart(absl::string_view part) {
  return !part.empty() && part.size() <= kLongestPart && part[0] != '.' && part[0] != '-' &&
         std::all_of(part.begin(), part.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
         });
}

// Branches may have slashes.
bool IsRevision(absl::string_view revision) {
  const std::vector<absl::string_view> parts = absl::StrSplit(revision, '/');
  return std::all_of(parts.begin(), parts.end(), IsPart);
}

bool IsRepository(absl::string_view name) {
  const std::vector<absl::string_view> parts = absl::StrSplit(name, '/');
  return parts.size() == 2 && IsPart(parts[0]) && IsPart(parts[1]);
}

}  // namespace

std::string HubName::Text() const {
  return revision == "main" ? repository : absl::StrCat(repository, "@", revision);
}

bool IsHubName(const std::string& model) {
  if (absl::StartsWith(model, kScheme)) return true;
  const std::string name = model.substr(0, model.find('@'));
  return IsRepository(name) && !FileExists(model) && !FileExists(name);
}

absl::StatusOr<HubName> ParseHubName(absl::string_view model) {
  absl::ConsumePrefix(&model, kScheme);
  HubName name;
  const size_t at = model.find('@');
  name.repository = std::string(model.substr(0, at));
  if (at != absl::string_view::npos) name.revision = std::string(model.substr(at + 1));
  if (IsRepository(name.repository) && IsRevision(name.revision)) return name;
  return Failure(reasons::kUsage,
                 absl::StrCat("\"", LogSafe(model),
                              "\" is no model's name; expected hf://ORGANIZATION/NAME, with "
                              "@REVISION behind it where one is meant"));
}

}  // namespace lwq::client

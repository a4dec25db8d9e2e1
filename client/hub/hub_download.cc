#include "client/hub/hub_download.h"

#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/git_blob_hash.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/hub/http_get.h"
#include "nlohmann/json.hpp"

namespace lwq::client {
namespace {

using Json = nlohmann::json;

constexpr char kPublicHub[] = "https://huggingface.co";
constexpr int64_t kMostListingBytes = 16 << 20;
constexpr size_t kMostFiles = 10'000;
// What has to be left over on the disk.
constexpr int64_t kSpareBytes = int64_t{256} << 20;
// The file that says that a directory is whole.
constexpr char kWhole[] = ".lwq-complete";

constexpr std::array<absl::string_view, 14> kCompanions = {"added_tokens.json",
                                                           "chat_template.jinja",
                                                           "chat_template.json",
                                                           "config.json",
                                                           "generation_config.json",
                                                           "merges.txt",
                                                           "model.safetensors.index.json",
                                                           "qwen.tiktoken",
                                                           "special_tokens_map.json",
                                                           "tokenizer.json",
                                                           "tokenizer.model",
                                                           "tokenizer_config.json",
                                                           "vocab.json",
                                                           "vocab.txt"};

// Safetensors and what stands beside them; never code, pickles or what lies in folders.
bool IsWanted(absl::string_view name) {
  if (absl::c_linear_search(kCompanions, name)) return true;
  // Mistral's own layout of the same weights, once more.
  return absl::EndsWith(name, ".safetensors") && !absl::StartsWith(name, "consolidated");
}

absl::Status Invalid(const HubName& name, absl::string_view why) {
  return Failure(reasons::kHubInvalid,
                 absl::StrCat("what the endpoint says of ", name.Text(), ": ", why));
}

std::string TextAt(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

bool IsHex(absl::string_view text, size_t length) {
  return text.size() == length && absl::c_all_of(text, [](unsigned char c) {
           return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
         });
}

absl::StatusOr<HubFile> ReadFileEntry(const HubName& name, const std::string& file_name,
                                      const Json& entry) {
  HubFile file{.name = file_name};
  const auto size = entry.find("size");
  if (size == entry.end() || !size->is_number_unsigned()) {
    return Invalid(name, absl::StrCat(file_name, " has no size"));
  }
  const uint64_t bytes = size->get<uint64_t>();
  constexpr uint64_t kMostBytes = uint64_t{1} << 50;
  if (bytes > kMostBytes) return Invalid(name, absl::StrCat(file_name, " has ", bytes, " bytes"));
  file.size_bytes = static_cast<int64_t>(bytes);
  const auto lfs = entry.find("lfs");
  if (lfs != entry.end() && lfs->is_object()) file.sha256 = TextAt(*lfs, "sha256");
  if (file.sha256.empty()) {
    file.git_hash = TextAt(entry, "blobId");
    if (!IsHex(file.git_hash, 40)) return Invalid(name, absl::StrCat(file_name, " has no digest"));
  } else if (!IsSha256Hex(file.sha256)) {
    return Invalid(name, absl::StrCat(file_name, " has no SHA-256"));
  }
  return file;
}

// Below the folder: models--organization--name/<commit>.
std::string HomeOf(const HubName& name, const HubOptions& options) {
  return JoinPath(options.folder,
                  absl::StrCat("models--", absl::StrReplaceAll(name.repository, {{"/", "--"}})));
}
std::string RefPath(const HubName& name, const HubOptions& options) {
  return JoinPath(HomeOf(name, options),
                  absl::StrCat("ref--", absl::StrReplaceAll(name.revision, {{"/", "--"}})));
}

// A transfer that is tried again while that may help.
template <typename Try>
absl::Status Insist(const HubOptions& options, const Try& attempt) {
  absl::Status status;
  for (int i = 0; i < options.tries; ++i) {
    if (i > 0) {
      for (const absl::Time end = absl::Now() + absl::Seconds(1 << (i - 1)); absl::Now() < end;) {
        if (options.may_go_on) LWQ_RETURN_IF_ERROR(options.may_go_on());
        absl::SleepFor(absl::Milliseconds(100));
      }
    }
    status = attempt();
    if (ReasonOf(status) != reasons::kHubUnavailable.name) return status;
  }
  return status;
}

absl::Status CheckDigest(const HubFile& file, const std::string& path) {
  LWQ_ASSIGN_OR_RETURN(const std::string found,
                       file.sha256.empty() ? GitBlobHashOfFile(path) : Sha256HexOfFile(path));
  const std::string& wanted = file.sha256.empty() ? file.git_hash : file.sha256;
  if (found == wanted) return absl::OkStatus();
  return Failure(reasons::kDigestMismatch, absl::StrCat(file.name, " has the digest ", found,
                                                        ", the endpoint lists ", wanted));
}

absl::Status CheckRoom(const HubListing& listing, const std::string& directory) {
  int64_t missing = 0;
  for (const HubFile& file : listing.files) {
    const std::string path = JoinPath(directory, file.name);
    if (FileExists(path)) continue;
    const std::string partial = absl::StrCat(path, ".partial");
    missing += file.size_bytes - (FileExists(partial) ? FileSize(partial).value_or(0) : 0);
  }
  struct statvfs disk;
  if (missing <= 0 || ::statvfs(directory.c_str(), &disk) != 0) return absl::OkStatus();
  const auto room = static_cast<int64_t>(disk.f_frsize) * static_cast<int64_t>(disk.f_bavail);
  if (room >= missing + kSpareBytes) return absl::OkStatus();
  return Failure(reasons::kStorageFull, absl::StrCat(missing, " bytes are to come and ", room,
                                                     " are free at ", directory));
}

absl::Status FetchFile(const HubName& name, const HubListing& listing, const HubFile& file,
                       const HubOptions& options, const std::string& directory,
                       const std::function<void(int64_t)>& progress) {
  const std::string path = JoinPath(directory, file.name);
  if (FileExists(path)) return absl::OkStatus();  // checked before it got its name
  const std::string partial = absl::StrCat(path, ".partial");
  const HttpGet get{.url = absl::StrCat(options.endpoint, "/", name.repository, "/resolve/",
                                        listing.commit, "/", file.name),
                    .bearer = options.token,
                    .may_go_on = options.may_go_on};
  LWQ_RETURN_IF_ERROR(
      Insist(options, [&] { return GetFile(get, partial, file.size_bytes, progress); }));
  if (absl::Status digest = CheckDigest(file, partial); !digest.ok()) {
    RemoveAll(partial).IgnoreError();  // or every further try would end so
    return digest;
  }
  return RenameFile(partial, path);
}

absl::StatusOr<HubListing> FetchListing(const HubName& name, const HubOptions& options) {
  const HttpGet get{
      .url = absl::StrCat(options.endpoint, "/api/models/", name.repository, "/revision/",
                          absl::StrReplaceAll(name.revision, {{"/", "%2F"}}), "?blobs=true"),
      .bearer = options.token,
      .may_go_on = options.may_go_on};
  std::string json;
  LWQ_RETURN_IF_ERROR(Annotate(Insist(options,
                                      [&]() -> absl::Status {
                                        LWQ_ASSIGN_OR_RETURN(json, GetText(get, kMostListingBytes));
                                        return absl::OkStatus();
                                      }),
                               "looking for ", name.Text()));
  return ParseHubListing(name, json);
}

// What an earlier download of this name left whole; "" when nothing did.
std::string WholeCopy(const HubName& name, const HubOptions& options) {
  std::string commit = ReadFile(RefPath(name, options), 256).value_or("");
  absl::StripAsciiWhitespace(&commit);
  if (!IsHex(commit, 40)) return "";
  const std::string directory = JoinPath(HomeOf(name, options), commit);
  return FileExists(JoinPath(directory, kWhole)) ? directory : "";
}

// A token goes over an open line to this machine alone.
absl::Status CheckEndpoint(const HubOptions& options) {
  const bool secure = absl::StartsWith(options.endpoint, "https://");
  const bool plain = absl::StartsWith(options.endpoint, "http://");
  if (!secure && !plain) {
    return Failure(reasons::kUsage, absl::StrCat("HF_ENDPOINT \"", LogSafe(options.endpoint),
                                                 "\" begins with neither https:// nor http://"));
  }
  const bool here = absl::StartsWith(options.endpoint, "http://127.0.0.1") ||
                    absl::StartsWith(options.endpoint, "http://localhost");
  if (options.token.empty() || secure || here) return absl::OkStatus();
  return Failure(reasons::kHubDenied,
                 "HF_TOKEN is not sent over http://, where anybody could read it");
}

}  // namespace

HubOptions HubOptionsFromEnvironment(const std::string& folder) {
  const auto variable = [](const char* name) -> std::string {
    const char* value = ::getenv(name);
    return value != nullptr ? value : "";
  };
  HubOptions options;
  options.endpoint = variable("HF_ENDPOINT");
  if (options.endpoint.empty()) options.endpoint = kPublicHub;
  while (absl::EndsWith(options.endpoint, "/")) options.endpoint.pop_back();
  options.token = variable("HF_TOKEN");
  options.folder = folder;
  return options;
}

absl::StatusOr<HubListing> ParseHubListing(const HubName& name, const std::string& json) {
  const Json answer = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!answer.is_object()) return Invalid(name, "it is no JSON object");
  HubListing listing;
  listing.commit = TextAt(answer, "sha");
  if (!IsHex(listing.commit, 40)) return Invalid(name, "it names no commit");
  const auto siblings = answer.find("siblings");
  if (siblings == answer.end() || !siblings->is_array() || siblings->size() > kMostFiles) {
    return Invalid(name, "it lists no files, or too many");
  }
  bool weights = false;
  for (const Json& entry : *siblings) {
    const std::string file_name = entry.is_object() ? TextAt(entry, "rfilename") : "";
    if (!IsWanted(file_name)) continue;
    // What lies in folders is another layout of the model.
    if (absl::StrContains(file_name, '/')) continue;
    if (!IsPlainFileName(file_name)) {
      return Invalid(name, absl::StrCat("a file is called \"", LogSafe(file_name), "\""));
    }
    LWQ_ASSIGN_OR_RETURN(HubFile file, ReadFileEntry(name, file_name, entry));
    weights = weights || absl::EndsWith(file_name, ".safetensors");
    listing.files.push_back(std::move(file));
  }
  if (!weights) {
    return Failure(reasons::kWeightsMissing,
                   absl::StrCat(name.Text(),
                                " has no safetensors files, which are the only weights "
                                "that lwq reads"));
  }
  absl::c_sort(listing.files, [](const HubFile& a, const HubFile& b) { return a.name < b.name; });
  return listing;
}

absl::StatusOr<std::string> DownloadModel(const HubName& name, const HubOptions& options) {
  LWQ_RETURN_IF_ERROR(CheckEndpoint(options));
  const absl::StatusOr<HubListing> listing = FetchListing(name, options);
  if (!listing.ok()) {
    const std::string whole = WholeCopy(name, options);
    if (ReasonOf(listing.status()) != "HUB_UNAVAILABLE" || whole.empty()) return listing.status();
    if (options.note) {
      options.note(absl::StrCat(options.endpoint, " cannot be reached: the copy of ", name.Text(),
                                " that is here is used"));
    }
    return whole;
  }
  const std::string directory = JoinPath(HomeOf(name, options), listing->commit);
  LWQ_RETURN_IF_ERROR(MakeDirectories(directory));
  LWQ_RETURN_IF_ERROR(CheckRoom(*listing, directory));
  int64_t total = 0, before = 0;
  for (const HubFile& file : listing->files) total += file.size_bytes;
  for (const HubFile& file : listing->files) {
    const auto progress = [&](int64_t bytes) {
      if (options.progress) options.progress(before + bytes, total);
    };
    LWQ_RETURN_IF_ERROR(FetchFile(name, *listing, file, options, directory, progress));
    before += file.size_bytes;
    progress(0);
  }
  LWQ_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(directory, kWhole), "\n"));
  LWQ_RETURN_IF_ERROR(WriteFileAtomically(RefPath(name, options), listing->commit + "\n"));
  return directory;
}

}  // namespace lwq::client

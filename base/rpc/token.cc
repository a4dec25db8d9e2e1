#include "base/rpc/token.h"

#include <sys/stat.h>

#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/reasons.h"
#include "base/rpc/channel.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr absl::string_view kPrefix = "lwq_";
constexpr int kSecretBytes = 32;
constexpr size_t kSecretLetters = 43;  // 256 bits, six to a letter
constexpr size_t kMaxIdLetters = 63;
constexpr int64_t kMaxFileBytes = 4096;

bool IsIdLetter(char c) { return absl::ascii_islower(c) || absl::ascii_isdigit(c); }
bool IsSecretLetter(char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_'; }

// Shows the token of a file; the last good one while the file cannot be read.
class FileToken final : public grpc::MetadataCredentialsPlugin {
 public:
  FileToken(std::string path, std::string text) : path_(std::move(path)), text_(std::move(text)) {
    ::stat(path_.c_str(), &seen_);
  }

  bool IsBlocking() const override { return false; }  // a small file, and only when it changed
  const char* GetType() const override { return "lwq-token"; }
  grpc::string DebugString() override { return "lwq token"; }
  grpc::Status GetMetadata(grpc::string_ref, grpc::string_ref, const grpc::AuthContext&,
                           std::multimap<grpc::string, grpc::string>* metadata) override {
    metadata->emplace("authorization", absl::StrCat("Bearer ", Text()));
    return grpc::Status::OK;
  }

 private:
  std::string Text() {
    MutexLock lock(&mu_);
    struct stat now = {};
    const bool changed = ::stat(path_.c_str(), &now) == 0 &&
                         (now.st_mtim.tv_sec != seen_.st_mtim.tv_sec ||
                          now.st_mtim.tv_nsec != seen_.st_mtim.tv_nsec ||
                          now.st_ino != seen_.st_ino || now.st_size != seen_.st_size);
    if (changed) {
      seen_ = now;
      absl::StatusOr<std::string> text = ReadTokenFile(path_);
      if (text.ok()) {
        text_ = *std::move(text);
      } else {
        spdlog::warn("going on with the last token: {}", LogSafe(text.status().message()));
      }
    }
    return text_;
  }

  const std::string path_;
  Mutex mu_;
  struct stat seen_ ABSL_GUARDED_BY(mu_) = {};
  std::string text_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

std::string MakeTokenText(absl::string_view id) {
  std::string secret;
  absl::WebSafeBase64Escape(absl::HexStringToBytes(RandomHex(kSecretBytes)), &secret);
  return absl::StrCat(kPrefix, id, "_", secret);
}

std::optional<std::string> TokenIdOf(absl::string_view text) {
  if (!absl::ConsumePrefix(&text, kPrefix)) return std::nullopt;
  const size_t end = text.find('_');
  if (end == absl::string_view::npos || end == 0 || end > kMaxIdLetters) return std::nullopt;
  const absl::string_view id = text.substr(0, end);
  const absl::string_view secret = text.substr(end + 1);
  if (secret.size() != kSecretLetters || !std::all_of(id.begin(), id.end(), IsIdLetter) ||
      !std::all_of(secret.begin(), secret.end(), IsSecretLetter)) {
    return std::nullopt;
  }
  return std::string(id);
}

absl::StatusOr<std::string> ReadTokenFile(const std::string& path) {
  const absl::StatusOr<std::string> content = ReadFile(path, kMaxFileBytes);
  if (!content.ok()) {
    return Failure(reasons::kTokenFileInvalid,
                   absl::StrCat("reading ", path, ": ", content.status().message()));
  }
  const absl::string_view text = absl::StripAsciiWhitespace(*content);
  if (!TokenIdOf(text)) {
    return Failure(reasons::kTokenFileInvalid,
                   absl::StrCat("reading ", path, ": there is no token in it, or more than that"));
  }
  return std::string(text);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> WithToken(
    std::shared_ptr<grpc::ChannelCredentials> channel, const std::string& token_file,
    const std::string& address) {
  if (token_file.empty()) return channel;
  LWQ_ASSIGN_OR_RETURN(std::string text, ReadTokenFile(token_file));
  grpc_security_level least = GRPC_PRIVACY_AND_INTEGRITY;
  if (channel == nullptr) {
    if (!IsOnThisMachine(address)) {
      return Failure(reasons::kTokenInClear,
                     absl::StrCat("showing a token to ", LogSafe(address),
                                  ": the connection would not be encrypted"));
    }
    // gRPC's own check that the other side is on this machine.
    const bool is_socket = absl::StartsWith(address, "unix:");
    channel = grpc::experimental::LocalCredentials(is_socket ? UDS : LOCAL_TCP);
    least = GRPC_SECURITY_NONE;
  }
  return grpc::CompositeChannelCredentials(
      channel, grpc::experimental::MetadataCredentialsFromPlugin(
                   std::make_unique<FileToken>(token_file, std::move(text)), least));
}

}  // namespace lwq

#include "server/service/token_registry.h"

#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/rpc/token.h"
#include "base/status_macros.h"
#include "server/service/record_writes.h"
#include "server/service/validation.h"

namespace lwq {
namespace {

constexpr absl::Duration kLife = absl::Hours(24 * 90);
constexpr absl::Duration kLongestLife = absl::Hours(24 * 3660);
constexpr absl::Duration kKeptAfterEnd = absl::Hours(24 * 90);
constexpr size_t kMostTokens = 10'000;
constexpr size_t kMaxPrincipalBytes = 128;
constexpr char kAdminName[] = "tokens/admin";

std::string NameOfId(absl::string_view id) { return absl::StrCat("tokens/", id); }

absl::Time TimeOf(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

void SetTime(absl::Time time, google::protobuf::Timestamp* out) {
  const int64_t us = absl::ToUnixMicros(time);
  out->set_seconds(us / 1'000'000);
  out->set_nanos(static_cast<int32_t>(us % 1'000'000) * 1000);
}

// In the same time wherever they differ.
bool SameHash(const std::string& a, const std::string& b) {
  unsigned char differences = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    differences |= static_cast<unsigned char>(a[i] ^ b[i]);
  }
  return differences == 0;
}

bool IsPrincipal(absl::string_view text) {
  return !text.empty() && text.size() <= kMaxPrincipalBytes &&
         std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return absl::ascii_isgraph(c); });
}

// Of a worker id, or of what one begins with.
void CheckWorkerPattern(const v1::Token& token, FieldErrors& errors) {
  if (token.worker().empty()) return;
  if (token.role() != v1::Token::WORKER) {
    errors.Add("token.worker", "is set, and the role is not WORKER");
  }
  absl::string_view id = token.worker();
  if (absl::ConsumeSuffix(&id, "*")) absl::ConsumeSuffix(&id, "-");
  if (!IsResourceId(id)) {
    errors.Add("token.worker", "is neither a worker id nor the beginning of one and a final *",
               "NAME_INVALID");
  }
}

absl::Status Check(const v1::Token& token, absl::Time now) {
  FieldErrors errors;
  if (!IsPrincipal(token.principal())) {
    errors.Add("token.principal", "is not 1 to 128 visible ASCII characters without spaces");
  }
  if (!v1::Token::Role_IsValid(token.role()) || token.role() == v1::Token::ROLE_UNSPECIFIED) {
    errors.Add("token.role", "is none of CLIENT, OPERATOR, ADMIN, WORKER");
  }
  if (!token.tenant().empty() && !IsResourceId(token.tenant())) {
    errors.Add("token.tenant", "is not a lower-case id of at most 63 letters, digits and dashes",
               "NAME_INVALID");
  }
  CheckWorkerPattern(token, errors);
  if (token.has_expire_time()) {
    const absl::Time expires = TimeOf(token.expire_time());
    if (expires <= now || expires > now + kLongestLife) {
      errors.Add("token.expire_time", "is not in the future, or more than ten years away");
    }
  }
  return errors.status();
}

v1::Token NewToken(const v1::Token& asked, const std::string& creator, absl::Time now) {
  v1::Token token;
  token.set_name(NameOfId(absl::StrCat("t", RandomHex(6))));
  token.set_principal(asked.principal());
  token.set_role(asked.role());
  token.set_creator(creator);
  token.set_tenant(asked.tenant());
  token.set_worker(asked.worker());
  SetTime(now, token.mutable_create_time());
  SetTime(asked.has_expire_time() ? TimeOf(asked.expire_time()) : now + kLife,
          token.mutable_expire_time());
  return token;
}

Write WriteOf(const v1::TokenRecord& record) {
  Write write{.table = Table::kTokens};
  write.record.key = record.token().name();
  write.record.order = ToMicros(record.token().create_time());
  write.record.tenant = TenantOf(record.token());
  record.SerializeToString(&write.record.value);
  return write;
}

}  // namespace

LiveToken::LiveToken(v1::Token token, std::string secret_sha256)
    : token_(std::move(token)),
      secret_sha256_(std::move(secret_sha256)),
      revoked_(token_.has_revoke_time()) {}

absl::Status LiveToken::IsGood(absl::Time now) const {
  if (revoked_) return Failure(reasons::kTokenRevoked, "the token was revoked");
  if (token_.has_expire_time() && now >= TimeOf(token_.expire_time())) {
    return Failure(reasons::kTokenExpired, "the token has expired");
  }
  return absl::OkStatus();
}

TokenRegistry::TokenRegistry(Store* store, Clock* clock, std::string admin_token_file)
    : store_(store), clock_(clock), admin_token_file_(std::move(admin_token_file)) {}

absl::Status TokenRegistry::Load() {
  ListQuery query;
  query.order_at_least = INT64_MIN;
  while (true) {
    LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows, store_->List(Table::kTokens, query));
    for (const Record& row : rows) {
      LWQ_ASSIGN_OR_RETURN(const v1::TokenRecord record,
                           ParseRecord<v1::TokenRecord>(Table::kTokens, row));
      Put(record.token(), record.secret_sha256());
    }
    if (static_cast<int>(rows.size()) < query.limit) break;
    query.after_key = rows.back().key;
  }
  if (admin_token_file_.empty()) return absl::OkStatus();
  if (!FileExists(admin_token_file_)) {
    // Made with the rights it keeps: there is no moment in which others may read it.
    const mode_t before = ::umask(0077);
    absl::Status made =
        WriteFileAtomically(admin_token_file_, absl::StrCat(MakeTokenText("admin"), "\n"));
    ::umask(before);
    LWQ_RETURN_IF_ERROR(made);
    spdlog::info("an admin's token was made: {}", LogSafe(admin_token_file_));
  }
  return LoadAdminToken();
}

absl::Status TokenRegistry::LoadAdminToken() {
  LWQ_ASSIGN_OR_RETURN(const std::string text, ReadTokenFile(admin_token_file_));
  if (TokenIdOf(text) != "admin") {
    return Failure(reasons::kTokenFileInvalid,
                   absl::StrCat("reading ", admin_token_file_,
                                ": an admin's token file holds lwq_admin_ and 43 characters"));
  }
  v1::Token token;
  token.set_name(kAdminName);
  token.set_principal("admin");
  token.set_role(v1::Token::ADMIN);
  Put(token, Sha256Hex(text));
  return absl::OkStatus();
}

absl::Status TokenRegistry::ReloadAdminToken() {
  return admin_token_file_.empty() ? absl::OkStatus() : LoadAdminToken();
}

void TokenRegistry::Put(const v1::Token& token, const std::string& secret_sha256) {
  MutexLock lock(&mu_);
  std::shared_ptr<LiveToken>& entry = tokens_[token.name()];
  if (entry != nullptr && entry->secret_sha256() == secret_sha256) return;
  // What was let in with the secret before has to go.
  if (entry != nullptr) entry->Revoke();
  entry = std::make_shared<LiveToken>(token, secret_sha256);
}

absl::StatusOr<std::shared_ptr<const LiveToken>> TokenRegistry::Find(absl::string_view text) const {
  const std::optional<std::string> id = TokenIdOf(text);
  const std::string hash = Sha256Hex(text);
  std::shared_ptr<const LiveToken> token;
  if (id) {
    MutexLock lock(&mu_);
    const auto found = tokens_.find(NameOfId(*id));
    if (found != tokens_.end()) token = found->second;
  }
  if (token == nullptr || !SameHash(token->secret_sha256(), hash)) {
    return Failure(reasons::kTokenInvalid, "the token is none of this server");
  }
  LWQ_RETURN_IF_ERROR(token->IsGood(clock_->Now()));
  return token;
}

absl::StatusOr<v1::CreateTokenResponse> TokenRegistry::Create(const v1::CreateTokenRequest& request,
                                                              const std::string& creator) {
  const absl::Time now = clock_->Now();
  LWQ_RETURN_IF_ERROR(Check(request.token(), now));
  LWQ_ASSIGN_OR_RETURN(const RequestMark mark, MarkOf(request, kDefaultTenant));
  LWQ_ASSIGN_OR_RETURN(const std::string replayed, FindRequest(*store_, mark));
  std::vector<Write> writes = RemovalsOfOld();
  v1::TokenRecord record;
  if (replayed.empty()) {
    {
      MutexLock lock(&mu_);
      if (tokens_.size() - writes.size() >= kMostTokens) {
        return Failure(reasons::kQuotaExceeded,
                       absl::StrCat("there are ", kMostTokens, " tokens: revoke some"));
      }
    }
    *record.mutable_token() = NewToken(request.token(), creator, now);
    const std::vector<Write> remember =
        RequestWrites(mark, record.token().name(), {absl::ToUnixMicros(now), 0});
    writes.insert(writes.end(), remember.begin(), remember.end());
  } else {
    LWQ_ASSIGN_OR_RETURN(record, Read(replayed));
    if (record.token().has_revoke_time()) {
      return Failure(reasons::kTokenRevoked,
                     absl::StrCat(replayed, " came of this request and was revoked since"));
    }
  }
  const v1::Token& token = record.token();
  const std::string text = MakeTokenText(token.name().substr(sizeof("tokens/") - 1));
  record.set_secret_sha256(Sha256Hex(text));
  writes.push_back(WriteOf(record));
  LWQ_RETURN_IF_ERROR(store_->Commit(writes));
  {
    MutexLock lock(&mu_);
    for (const Write& write : writes) {
      if (write.remove) tokens_.erase(write.record.key);
    }
  }
  Put(token, record.secret_sha256());
  v1::CreateTokenResponse response;
  *response.mutable_token() = token;
  response.set_secret(text);
  return response;
}

absl::StatusOr<v1::ListTokensResponse> TokenRegistry::List(
    const v1::ListTokensRequest& request) const {
  ListQuery query;
  query.order = ListQuery::Order::kNewestFirst;
  LWQ_ASSIGN_OR_RETURN(query.limit, PageSize(request.page_size(), 50));
  LWQ_RETURN_IF_ERROR(ApplyPageToken(request.page_token(), "tokens", query));
  LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows, store_->List(Table::kTokens, query));
  v1::ListTokensResponse response;
  for (const Record& row : rows) {
    LWQ_ASSIGN_OR_RETURN(const v1::TokenRecord record,
                         ParseRecord<v1::TokenRecord>(Table::kTokens, row));
    *response.add_tokens() = record.token();
  }
  if (static_cast<int>(rows.size()) == query.limit) {
    response.set_next_page_token(MakePageToken(rows.back(), "tokens"));
  }
  return response;
}

absl::StatusOr<v1::Token> TokenRegistry::Revoke(const v1::RevokeTokenRequest& request) {
  LWQ_RETURN_IF_ERROR(CheckName(request.name(), "tokens"));
  LWQ_ASSIGN_OR_RETURN(const RequestMark mark, MarkOf(request, kDefaultTenant));
  LWQ_ASSIGN_OR_RETURN(const std::string replayed, FindRequest(*store_, mark));
  LWQ_ASSIGN_OR_RETURN(v1::TokenRecord record, Read(request.name()));
  if (!replayed.empty() || record.token().has_revoke_time()) return record.token();
  const absl::Time now = clock_->Now();
  SetTime(now, record.mutable_token()->mutable_revoke_time());
  // Refused from here on, whatever becomes of the record: who asked is told, and asks again.
  {
    MutexLock lock(&mu_);
    const auto found = tokens_.find(request.name());
    if (found != tokens_.end()) found->second->Revoke();
  }
  std::vector<Write> writes = RequestWrites(mark, request.name(), {absl::ToUnixMicros(now), 0});
  writes.push_back(WriteOf(record));
  LWQ_RETURN_IF_ERROR(store_->Commit(writes));
  return record.token();
}

absl::StatusOr<v1::TokenRecord> TokenRegistry::Read(const std::string& name) const {
  absl::StatusOr<Record> row = store_->Get(Table::kTokens, name);
  if (absl::IsNotFound(row.status())) {
    return Failure(
        reasons::kNotFound,
        name == kAdminName
            ? std::string("tokens/admin is of the server's --admin-token-file: replace that")
            : absl::StrCat("no ", name));
  }
  LWQ_RETURN_IF_ERROR(row.status());
  return ParseRecord<v1::TokenRecord>(Table::kTokens, *row);
}

std::vector<Write> TokenRegistry::RemovalsOfOld() const {
  const absl::Time before = clock_->Now() - kKeptAfterEnd;
  std::vector<Write> removals;
  MutexLock lock(&mu_);
  for (const auto& [name, live] : tokens_) {
    const v1::Token& token = live->token();
    const bool expired = token.has_expire_time() && TimeOf(token.expire_time()) < before;
    const bool revoked = token.has_revoke_time() && TimeOf(token.revoke_time()) < before;
    if (!expired && !revoked) continue;
    Write write{.table = Table::kTokens, .remove = true};
    write.record.key = name;
    removals.push_back(std::move(write));
  }
  return removals;
}

}  // namespace lwq

// Tokens over each store.
#include "server/service/token_registry.h"

#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/rpc/token.h"
#include "gmock/gmock.h"
#include "server/store/memory_store.h"
#include "server/store/open_store.h"
#include "server/store/postgres_connection.h"
#include "tests/testing/postgres_cluster.h"
#include "tests/testing/simulated_clock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

PostgresCluster* Cluster() {
  static std::unique_ptr<PostgresCluster>& cluster =
      *new std::unique_ptr<PostgresCluster>(PostgresCluster::Start());
  return cluster.get();
}

class StopCluster : public ::testing::Environment {
  void TearDown() override {
    if (Cluster() != nullptr) Cluster()->Kill();
  }
};
const auto* const stop_cluster = ::testing::AddGlobalTestEnvironment(new StopCluster);

// The URL of a new database.
std::string NewDatabase() {
  static int num_databases = 0;
  const std::string name = absl::StrCat("tokens", ++num_databases);
  auto admin = PostgresConnection::Open(Cluster()->UrlOf("postgres"));
  EXPECT_OK(admin.ok() ? (*admin)->Execute("CREATE DATABASE " + name) : admin.status());
  return Cluster()->UrlOf(name);
}

class TokenRegistryTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    spdlog::set_level(spdlog::level::off);
    const std::string kind = GetParam();
    if (kind == "postgres" && Cluster() == nullptr) {
      GTEST_SKIP() << "PostgreSQL's server is not installed here";
    }
    if (kind == "memory") store_ = std::make_unique<MemoryStore>();
    if (kind == "sqlite") url_ = JoinPath(directory_.path(), "store");
    if (kind == "postgres") url_ = NewDatabase();
    OpenAgain();
  }
  // As a server that starts anew does.
  void OpenAgain() {
    tokens_.reset();
    if (!url_.empty()) {
      store_.reset();
      LWQ_ASSERT_OK_AND_ASSIGN(store_, OpenStore(url_));
    }
    tokens_ = std::make_unique<TokenRegistry>(store_.get(), &clock_, admin_file_);
    ASSERT_OK(tokens_->Load());
  }
  static v1::CreateTokenRequest Request(v1::Token::Role role = v1::Token::CLIENT) {
    v1::CreateTokenRequest request;
    request.mutable_token()->set_principal("anna");
    request.mutable_token()->set_role(role);
    return request;
  }
  absl::Status Show(const std::string& text) { return tokens_->Find(text).status(); }
  v1::CreateTokenResponse Make(const v1::CreateTokenRequest& request = Request()) {
    absl::StatusOr<v1::CreateTokenResponse> made = tokens_->Create(request, "tokens/admin");
    EXPECT_OK(made.status());
    return made.ok() ? *made : v1::CreateTokenResponse();
  }
  absl::Status Revoke(const std::string& name) {
    v1::RevokeTokenRequest request;
    request.set_name(name);
    return tokens_->Revoke(request).status();
  }

  TempDirectory directory_ = *TempDirectory::Create();
  SimulatedClock clock_;
  std::string url_;  // of the store; empty: in memory
  std::string admin_file_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<TokenRegistry> tokens_;
};

TEST_P(TokenRegistryTest, ATokenIsKnownAlsoAfterARestartAndItsSecretIsNowhere) {
  const v1::CreateTokenResponse made = Make(Request(v1::Token::OPERATOR));
  OpenAgain();
  LWQ_ASSERT_OK_AND_ASSIGN(const auto found, tokens_->Find(made.secret()));
  EXPECT_EQ(found->token().name(), made.token().name());
  EXPECT_EQ(found->token().role(), v1::Token::OPERATOR);
  EXPECT_EQ(found->token().principal(), "anna");
  EXPECT_EQ(found->token().creator(), "tokens/admin");
  LWQ_ASSERT_OK_AND_ASSIGN(const Record row, store_->Get(Table::kTokens, made.token().name()));
  // The random part may hold underscores of its own.
  const std::string named_part = absl::StrCat("lwq_", made.token().name().substr(7), "_");
  ASSERT_THAT(made.secret(), StartsWith(named_part));
  const std::string random_part = made.secret().substr(named_part.size());
  ASSERT_EQ(random_part.size(), 43);
  EXPECT_THAT(row.value, Not(HasSubstr(random_part)));
  EXPECT_THAT(row.value, HasSubstr(Sha256Hex(made.secret())));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto list, tokens_->List({}));
  EXPECT_THAT(list.SerializeAsString(), Not(HasSubstr(Sha256Hex(made.secret()))));
}

TEST_P(TokenRegistryTest, EveryOtherTextIsRefusedInTheSameWords) {
  const std::string good = Make().secret();
  std::string wrong_end = good;
  wrong_end.back() = wrong_end.back() == 'A' ? 'Q' : 'A';
  const std::string known_id = good.substr(0, good.size() - 43);
  std::string message;
  for (const std::string& text :
       {wrong_end, absl::StrCat(known_id, std::string(43, 'A')), MakeTokenText("t000000000000"),
        MakeTokenText("admin"), good.substr(0, good.size() - 1), good + "A", std::string(),
        std::string(5000, 'x'), absl::StrCat("lwq_", std::string(43, 'A'))}) {
    const absl::Status refused = Show(text);
    EXPECT_THAT(refused, FailsWith("TOKEN_INVALID", _)) << text;
    if (message.empty()) message = std::string(refused.message());
    EXPECT_EQ(refused.message(), message) << "whether the id is known is nobody's business";
  }
  EXPECT_OK(Show(good));
}

TEST_P(TokenRegistryTest, ATokenExpires) {
  v1::CreateTokenRequest request = Request();
  request.mutable_token()->mutable_expire_time()->set_seconds(
      absl::ToUnixSeconds(clock_.Now() + absl::Seconds(60)));
  const v1::CreateTokenResponse minute = Make(request);
  const v1::CreateTokenResponse standard = Make();
  LWQ_ASSERT_OK_AND_ASSIGN(const auto let_in, tokens_->Find(minute.secret()));
  clock_.Advance(absl::Seconds(59));
  EXPECT_OK(Show(minute.secret()));
  EXPECT_OK(let_in->IsGood(clock_.Now()));
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(Show(minute.secret()), FailsWith("TOKEN_EXPIRED", _));
  EXPECT_THAT(let_in->IsGood(clock_.Now()), FailsWith("TOKEN_EXPIRED", _));
  clock_.Advance(absl::Hours(24 * 90) - absl::Seconds(61));
  EXPECT_OK(Show(standard.secret()));
  clock_.Advance(absl::Seconds(2));
  EXPECT_THAT(Show(standard.secret()), FailsWith("TOKEN_EXPIRED", _));
  OpenAgain();
  EXPECT_THAT(Show(standard.secret()), FailsWith("TOKEN_EXPIRED", _));
}

TEST_P(TokenRegistryTest, ARevokedTokenOpensNothingFromThatMomentForEver) {
  const v1::CreateTokenResponse made = Make();
  LWQ_ASSERT_OK_AND_ASSIGN(const auto let_in, tokens_->Find(made.secret()));
  ASSERT_OK(Revoke(made.token().name()));
  EXPECT_THAT(Show(made.secret()), FailsWith("TOKEN_REVOKED", _));
  EXPECT_THAT(let_in->IsGood(clock_.Now()), FailsWith("TOKEN_REVOKED", _));
  EXPECT_OK(Revoke(made.token().name())) << "twice is as well";
  OpenAgain();
  EXPECT_THAT(Show(made.secret()), FailsWith("TOKEN_REVOKED", _));
  EXPECT_THAT(Revoke("tokens/t000000000000"), FailsWith("NOT_FOUND", _));
  EXPECT_THAT(Revoke("jobs/j"), FailsWith("NAME_INVALID", _));
}

TEST_P(TokenRegistryTest, ARequestThatIsSentAgainGivesTheSameTokenANewSecret) {
  v1::CreateTokenRequest request = Request();
  request.set_request_id("01234567-89ab-cdef-0123-456789abcdef");
  const v1::CreateTokenResponse first = Make(request);
  const v1::CreateTokenResponse second = Make(request);
  EXPECT_EQ(first.token().name(), second.token().name());
  EXPECT_THAT(Show(first.secret()), FailsWith("TOKEN_INVALID", _));
  EXPECT_OK(Show(second.secret()));
  OpenAgain();
  EXPECT_OK(Show(second.secret()));
  request.mutable_token()->set_role(v1::Token::ADMIN);
  EXPECT_THAT(tokens_->Create(request, "x"), FailsWith("REQUEST_ID_REUSED", _));
}

TEST_P(TokenRegistryTest, WhatNoTokenMayBeIsRefused) {
  const auto refused = [&](const std::function<void(v1::Token&)>& change) {
    v1::CreateTokenRequest request = Request();
    change(*request.mutable_token());
    return tokens_->Create(request, "x").status();
  };
  const auto at = [&](absl::Duration from_now) {
    return [=, this](v1::Token& token) {
      token.mutable_expire_time()->set_seconds(absl::ToUnixSeconds(clock_.Now() + from_now));
    };
  };
  EXPECT_THAT(refused([](v1::Token& t) { t.clear_principal(); }), FailsWith("FIELD_INVALID", _));
  EXPECT_THAT(refused([](v1::Token& t) { t.set_principal("a b"); }), FailsWith("FIELD_INVALID", _));
  EXPECT_THAT(refused([](v1::Token& t) { t.set_principal(std::string(129, 'a')); }),
              FailsWith("FIELD_INVALID", _));
  EXPECT_THAT(refused([](v1::Token& t) { t.clear_role(); }), FailsWith("FIELD_INVALID", _));
  EXPECT_THAT(refused([](v1::Token& t) { t.set_role(static_cast<v1::Token::Role>(17)); }),
              FailsWith("FIELD_INVALID", _));
  EXPECT_THAT(refused(at(-absl::Seconds(1))), FailsWith("FIELD_INVALID", _));
  EXPECT_THAT(refused(at(absl::Hours(24 * 366 * 11))), FailsWith("FIELD_INVALID", _));
}

TEST_P(TokenRegistryTest, ThoseThatEndedLongAgoAreForgotten) {
  const v1::CreateTokenResponse old = Make();
  clock_.Advance(absl::Hours(24 * 179));
  Make();
  EXPECT_EQ(tokens_->List({})->tokens_size(), 2) << "it has been over for 89 days";
  clock_.Advance(absl::Hours(24 * 2));
  const v1::CreateTokenResponse last = Make();
  LWQ_ASSERT_OK_AND_ASSIGN(const auto list, tokens_->List({}));
  EXPECT_EQ(list.tokens_size(), 2);
  EXPECT_EQ(list.tokens(0).name(), last.token().name()) << "newest first";
  EXPECT_THAT(Show(old.secret()), FailsWith("TOKEN_INVALID", _));
}

TEST_P(TokenRegistryTest, TheAdminsFileIsMadeAndReadAgain) {
  admin_file_ = JoinPath(directory_.path(), "admin.token");
  OpenAgain();
  struct stat info = {};
  ASSERT_EQ(::stat(admin_file_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string first, ReadTokenFile(admin_file_));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto found, tokens_->Find(first));
  EXPECT_EQ(found->token().role(), v1::Token::ADMIN);
  OpenAgain();
  EXPECT_OK(Show(first)) << "a restart makes no other";

  const std::string second = MakeTokenText("admin");
  ASSERT_OK(WriteFileAtomically(admin_file_, second + "\n"));
  ASSERT_OK(tokens_->ReloadAdminToken());
  EXPECT_OK(Show(second));
  EXPECT_THAT(Show(first), FailsWith("TOKEN_INVALID", _));

  ASSERT_OK(WriteFileAtomically(admin_file_, MakeTokenText("root")));
  EXPECT_THAT(tokens_->ReloadAdminToken(), FailsWith("TOKEN_FILE_INVALID", _));
  ASSERT_OK(WriteFileAtomically(admin_file_, "rubbish"));
  const absl::Status rubbish = tokens_->ReloadAdminToken();
  EXPECT_THAT(rubbish, FailsWith("TOKEN_FILE_INVALID", Not(HasSubstr("rubbish"))));
  EXPECT_OK(Show(second)) << "the old one stays";
  EXPECT_THAT(Revoke("tokens/admin"), FailsWith("NOT_FOUND", HasSubstr("--admin-token-file")));
}

INSTANTIATE_TEST_SUITE_P(Stores, TokenRegistryTest,
                         ::testing::Values("memory", "sqlite", "postgres"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace lwq::testing

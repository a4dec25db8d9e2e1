// token create|list|revoke: who may call the server, by tokens.
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "client/all_pages.h"
#include "client/commands/output.h"
#include "client/errors.h"
#include "client/session.h"
#include "client/table.h"

namespace lwq::client {
namespace {

constexpr int64_t kMostDays = 3650;

constexpr std::array<FlagDef, 4> kFlags = {{
    {"days", "N", "create: for how long it is good, 1 to 3650 (default 90)"},
    {"role", "ROLE", "create: client (default), operator, admin or worker",
     "client operator admin worker"},
    {"tenant", "TENANT", "create: whose jobs and files it opens (default: default)"},
    {"worker", "NAME",
     "create, of a worker: the one id it may have, or NAME-* for all that begin so"},
}};

std::string RoleText(v1::Token::Role role) {
  return absl::AsciiStrToLower(v1::Token::Role_Name(role));
}

std::string DayOf(const google::protobuf::Timestamp& time) {
  return absl::FormatTime("%Y-%m-%d", absl::FromUnixSeconds(time.seconds()), absl::UTCTimeZone());
}

std::string StateOf(const v1::Token& token) {
  if (token.has_revoke_time()) return absl::StrCat("revoked ", DayOf(token.revoke_time()));
  const bool over = absl::FromUnixSeconds(token.expire_time().seconds()) <= absl::Now();
  return absl::StrCat(over ? "expired " : "until ", DayOf(token.expire_time()));
}

absl::StatusOr<int> Create(Invocation& invocation) {
  const Flags& flags = invocation.flags;
  LWQ_ASSIGN_OR_RETURN(const int64_t days, flags.GetInt("days", 90, 1, kMostDays));
  LWQ_ASSIGN_OR_RETURN(const std::string role,
                       flags.GetChoice("role", {"client", "operator", "admin", "worker"}));
  v1::CreateTokenRequest request;
  v1::Token& token = *request.mutable_token();
  token.set_principal(invocation.arguments[1]);
  v1::Token::Role value = v1::Token::CLIENT;
  if (!role.empty()) v1::Token::Role_Parse(absl::AsciiStrToUpper(role), &value);
  token.set_role(value);
  token.set_tenant(flags.Get("tenant"));
  token.set_worker(flags.Get("worker"));
  token.mutable_expire_time()->set_seconds(
      absl::ToUnixSeconds(absl::Now() + absl::Hours(24 * days)));
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(flags));
  LWQ_ASSIGN_OR_RETURN(const v1::CreateTokenResponse made,
                       session->client()->CreateToken(std::move(request)));
  if (flags.Has("json")) return PrintJson(invocation, made);
  *invocation.err << ShortName(made.token().name()) << ": " << RoleText(made.token().role())
                  << " for " << LogSafe(made.token().principal()) << ", " << StateOf(made.token())
                  << "; keep the next line, it is shown this once\n";
  *invocation.out << LogSafe(made.secret()) << "\n";
  return kExitOk;
}

absl::StatusOr<int> List(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  v1::ListTokensRequest request;
  LWQ_ASSIGN_OR_RETURN(const v1::ListTokensResponse all,
                       AllPages(session->client(), &Client::ListTokens, request));
  if (invocation.flags.Has("json")) return PrintJson(invocation, all);
  Table table({"NAME", "FOR", "ROLE", "TENANT", "WORKER", "STATE", ">MADE", "BY"});
  for (const v1::Token& token : all.tokens()) {
    table.AddRow({ShortName(token.name()), LogSafe(token.principal()), RoleText(token.role()),
                  TenantText(token), LogSafe(token.worker()), StateOf(token),
                  AgeText(token.create_time()), LogSafe(token.creator())});
  }
  *invocation.out << table.Text();
  return kExitOk;
}

absl::StatusOr<int> Revoke(Invocation& invocation) {
  LWQ_ASSIGN_OR_RETURN(const auto session, Session::OpenService(invocation.flags));
  LWQ_ASSIGN_OR_RETURN(const v1::Token token,
                       session->client()->RevokeToken(FullName("tokens", invocation.arguments[1])));
  if (invocation.flags.Has("json")) return PrintJson(invocation, token);
  *invocation.out << ShortName(token.name()) << " of " << LogSafe(token.principal()) << " "
                  << StateOf(token) << "\n";
  return kExitOk;
}

constexpr std::array<Subcommand, 3> kSubcommands = {{
    {"create", 1, 1, Create},
    {"list", 0, 0, List},
    {"revoke", 1, 1, Revoke},
}};

absl::StatusOr<int> Run(Invocation& invocation) { return RunSubcommand(kSubcommands, invocation); }

constexpr std::array<Advice, 1> kAdvice = {
    {{"NOT_FOUND", "lwqctl token list shows which there are"}}};

}  // namespace

extern const CommandDef kTokenCommand;
constinit const CommandDef kTokenCommand = {
    .name = "token",
    .arguments = "create WHO | list | revoke TOKEN",
    .summary = "Makes and revokes tokens, which let their owners into a server; for admins.",
    .examples =
        "  (umask 077; lwqctl token create ci --role client --days 30 > ci.token)\n"
        "  lwqctl jobs --token-file ci.token\n  lwqctl token create anna --tenant acme\n"
        "  lwqctl token create gpu-7 --role worker --worker gpu-7\n  lwqctl token revoke "
        "t0123456789ab\n",
    .flags = kFlags,
    .more_flags = nullptr,
    .fewest_arguments = 1,
    .most_arguments = 2,
    .run = Run,
    .advice = kAdvice,
};

}  // namespace lwq::client

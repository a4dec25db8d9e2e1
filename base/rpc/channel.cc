#include "base/rpc/channel.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/support/channel_arguments.h"

namespace lwq {
namespace {

// "a.b.c.d" of a name or address; "" when there is none.
std::string LookUp(const std::string& host) {
  addrinfo wanted = {};
  wanted.ai_family = AF_INET;
  wanted.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), nullptr, &wanted, &found) != 0) return "";
  char text[INET_ADDRSTRLEN] = "";
  const auto* address = reinterpret_cast<const sockaddr_in*>(found->ai_addr);
  ::inet_ntop(AF_INET, &address->sin_addr, text, sizeof text);
  ::freeaddrinfo(found);
  return text;
}

absl::Status Invalid(absl::string_view address, absl::string_view problem) {
  return Failure(reasons::kAddressInvalid, absl::StrCat("\"", LogSafe(address.substr(0, 200)),
                                                        "\" is no server's address: ", problem));
}

absl::Status CheckHostAndPort(absl::string_view address) {
  absl::ConsumePrefix(&address, "dns:///");
  if (absl::StrContains(address, "://")) {
    return Invalid(address, "leave out what ends with \"://\"");
  }
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos) return Invalid(address, "it has no :port");
  const absl::string_view host = address.substr(0, colon);
  if (host.empty() || absl::StrContains(host, '/') || absl::StrContains(host, ' ')) {
    return Invalid(address, "it has no host before the port");
  }
  int port = 0;
  if (!absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 1 || port > 65535) {
    return Invalid(address, "the port is not from 1 to 65535");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckAddress(absl::string_view address) {
  if (absl::ConsumePrefix(&address, "unix:")) {
    return address.empty() ? Invalid("unix:", "it has no path") : absl::OkStatus();
  }
  for (absl::string_view one : absl::StrSplit(address, ',')) {
    LWQ_RETURN_IF_ERROR(CheckHostAndPort(absl::StripAsciiWhitespace(one)));
  }
  return absl::OkStatus();
}

bool IsOnThisMachine(absl::string_view address) {
  if (absl::StartsWith(address, "unix:")) return true;
  for (absl::string_view one : absl::StrSplit(address, ',')) {
    one = absl::StripAsciiWhitespace(one);
    absl::ConsumePrefix(&one, "dns:///");
    const size_t colon = one.rfind(':');
    if (colon == absl::string_view::npos) return false;
    const absl::string_view host = one.substr(0, colon);
    in_addr parsed;
    const bool is_loopback =
        absl::StartsWith(host, "127.") &&
        ::inet_pton(AF_INET, std::string(host).c_str(), &parsed) == 1;  // not "127.example"
    if (!is_loopback && host != "localhost" && host != "[::1]" && host != "::1") return false;
  }
  return true;
}

std::string ChannelTarget(const std::string& address) {
  if (!absl::StrContains(address, ",")) return address;
  std::vector<std::string> targets;
  for (absl::string_view part : absl::StrSplit(address, ',')) {
    const absl::string_view one = absl::StripAsciiWhitespace(part);
    const size_t colon = one.rfind(':');
    if (colon == absl::string_view::npos) continue;
    const std::string host = LookUp(std::string(one.substr(0, colon)));
    if (!host.empty()) targets.push_back(absl::StrCat(host, one.substr(colon)));
  }
  return targets.empty() ? address : absl::StrCat("ipv4:", absl::StrJoin(targets, ","));
}

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address,
                                           std::shared_ptr<grpc::ChannelCredentials> credentials) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  // A dead peer is noticed within 40 s even on a call that is silent for long; without the third
  // setting pings stop after two.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // A server that was restarted is found again within a second.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // Of several servers only the leader listens: round_robin keeps trying to reach them all, and
  // sends calls to those that it has reached.
  arguments.SetLoadBalancingPolicyName("round_robin");
  // The servers of a list have certificates that name the first of them: gRPC knows only addresses.
  const size_t comma = address.find(',');
  if (credentials != nullptr && comma != std::string::npos) {
    arguments.SetSslTargetNameOverride(address.substr(0, address.rfind(':', comma)));
  }
  if (credentials == nullptr) credentials = grpc::InsecureChannelCredentials();
  return grpc::CreateCustomChannel(ChannelTarget(address), credentials, arguments);
}

}  // namespace lwq

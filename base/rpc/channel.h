// Client channels with lwq's settings (docs of each in channel.cc).
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grpcpp/channel.h"
#include "grpcpp/security/credentials.h"

namespace lwq {

// The largest message either side accepts; larger data moves in chunks of kChunkBytes.
inline constexpr int kMaxMessageBytes = 4 << 20;
inline constexpr int kStreamChunkBytes = 256 << 10;

// Whether `address` is one that MakeChannel takes: "unix:/path", "host:port" (perhaps behind
// "dns:///") or several of these with commas between, ports from 1 to 65535. INVALID_ARGUMENT
// "ADDRESS_INVALID".
absl::Status CheckAddress(absl::string_view address);

// Whether `address` is a Unix socket or names the loopback, by all its parts.
bool IsOnThisMachine(absl::string_view address);

// A lazy channel to "unix:/path/to/socket", to "host:port", or to several servers of which one
// leads: "host:port,host:port". Calls go to whichever listens, so they follow the leader by
// themselves. Without transport security when `credentials` is null (tls.h); with it the servers of
// a list have certificates that name the first one's host. Never fails; calls on it do.
std::shared_ptr<grpc::Channel> MakeChannel(
    const std::string& address, std::shared_ptr<grpc::ChannelCredentials> credentials = nullptr);

// What gRPC calls `address`: itself, or the IPv4 addresses of a list. Names in a list are looked up
// once; one that is not known is left out.
std::string ChannelTarget(const std::string& address);

}  // namespace lwq

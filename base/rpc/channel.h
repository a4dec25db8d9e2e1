// Client channels with lwq's settings (docs of each in channel.cc).
#pragma once

#include <memory>
#include <string>

#include "grpcpp/channel.h"
#include "grpcpp/security/credentials.h"

namespace lwq {

// The largest message either side accepts; larger data moves in chunks of kChunkBytes.
inline constexpr int kMaxMessageBytes = 4 << 20;
inline constexpr int kStreamChunkBytes = 256 << 10;

// A lazy channel to "unix:/path/to/socket" or "host:port", without transport security when
// `credentials` is null. Never fails; calls on it do.
std::shared_ptr<grpc::Channel> MakeChannel(
    const std::string& address, std::shared_ptr<grpc::ChannelCredentials> credentials = nullptr);

}  // namespace lwq

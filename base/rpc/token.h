// Bearer tokens: their text, and how a client shows one with every call. The text is
// "lwq_ID_SECRET": the id names the token to its server, and the secret is 256 random bits in 43
// letters, digits, dashes and underscores. It is in files and on encrypted or local connections
// alone: never on a command line, in a log or in an error.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grpcpp/security/credentials.h"

namespace lwq {

// A new text, from the operating system's random bits. `id`: lower-case letters and digits.
std::string MakeTokenText(absl::string_view id);
// The id of a text; nullopt for what is none.
std::optional<std::string> TokenIdOf(absl::string_view text);

// The token in a file, without the white space around it. TOKEN_FILE_INVALID.
absl::StatusOr<std::string> ReadTokenFile(const std::string& path);

// `channel` with the token of `token_file` shown in each call. The file is read again when it
// changes, so a token can be replaced under a process that runs. `channel` itself when `token_file`
// is empty. Where `channel` is null, which is no encryption, `address` has to be on this machine:
// else TOKEN_IN_CLEAR; and the connection is refused should it lead elsewhere after all.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> WithToken(
    std::shared_ptr<grpc::ChannelCredentials> channel, const std::string& token_file,
    const std::string& address);

}  // namespace lwq

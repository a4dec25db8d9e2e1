#include "tests/client/hub/fake_hub.h"

#include <civetweb.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/git_blob_hash.h"
#include "base/hash.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace lwq::testing {
namespace {

void Send(mg_connection* connection, int code, const std::string& body,
          const std::string& headers = "") {
  const std::string text = absl::StrCat("HTTP/1.1 ", code, " X\r\nContent-Length: ", body.size(),
                                        "\r\nConnection: close\r\n", headers, "\r\n", body);
  mg_write(connection, text.data(), text.size());
}

std::string Header(mg_connection* connection, const char* name) {
  const char* value = mg_get_header(connection, name);
  return value != nullptr ? value : "";
}

}  // namespace

FakeHub& FakeHub::Fresh() {
  static FakeHub& hub = *new FakeHub;
  hub.files.clear();
  hub.listed_as.clear();
  hub.served_as.clear();
  hub.token.clear();
  hub.large_by_sha256 = true;
  hub.fail_for = 0;
  hub.cut_after = -1;
  hub.ignores_ranges = false;
  hub.redirect_to.clear();
  hub.claimed_size = -1;
  MutexLock lock(&hub.mu_);
  hub.requests_.clear();
  return hub;
}

FakeHub::FakeHub() {
  const char* options[] = {"listening_ports",   "127.0.0.1:0", "num_threads", "4",
                           "enable_keep_alive", "no",          nullptr};
  mg_callbacks callbacks = {};
  context_ = mg_start(&callbacks, nullptr, options);
  EXPECT_NE(context_, nullptr);
  mg_set_request_handler(context_, "**", &FakeHub::Serve, this);
  mg_server_port port = {};
  mg_get_server_ports(context_, 1, &port);
  endpoint_ = absl::StrCat("http://127.0.0.1:", port.port);
}

std::vector<std::string> FakeHub::Requests() const {
  MutexLock lock(&mu_);
  return requests_;
}

int FakeHub::Serve(mg_connection* connection, void* self) {
  return static_cast<FakeHub*>(self)->Answer(connection);
}

std::string FakeHub::Listing() const {
  nlohmann::json siblings = nlohmann::json::array();
  for (const auto& [name, content] : files) {
    nlohmann::json entry;
    const auto other = listed_as.find(name);
    entry["rfilename"] = other == listed_as.end() ? name : other->second;
    entry["size"] = claimed_size >= 0 ? claimed_size : static_cast<int64_t>(content.size());
    entry["blobId"] = GitBlobHash(content);
    if (large_by_sha256 && absl::EndsWith(name, ".safetensors")) {
      entry["lfs"] = {{"sha256", Sha256Hex(content)}, {"size", content.size()}};
    }
    siblings.push_back(std::move(entry));
  }
  return nlohmann::json({{"id", "org/model"}, {"sha", kCommit}, {"siblings", siblings}}).dump();
}

int FakeHub::Answer(mg_connection* connection) {
  const mg_request_info* info = mg_get_request_info(connection);
  const std::string path = info->local_uri;
  const std::string query = info->query_string != nullptr ? info->query_string : "";
  std::string range = Header(connection, "Range");
  {
    MutexLock lock(&mu_);
    requests_.push_back(
        absl::StrCat(info->request_method, " ", path, range.empty() ? "" : " ", range));
  }
  const bool elsewhere = absl::StartsWith(path, "/cdn/");
  const std::string wanted = token.empty() || elsewhere ? "" : absl::StrCat("Bearer ", token);
  if (Header(connection, "Authorization") != wanted) {
    Send(connection, 401, "no");
  } else if (fail_for > 0) {
    --fail_for;
    Send(connection, 503, "busy");
  } else if (absl::StartsWith(path, "/api/models/org/model/revision/")) {
    Send(connection, query == "blobs=true" ? 200 : 400, Listing());
  } else {
    absl::string_view name = path;
    const bool known =
        absl::ConsumePrefix(&name, absl::StrCat("/org/model/resolve/", kCommit, "/")) ||
        absl::ConsumePrefix(&name, "/cdn/");
    const auto file = files.find(std::string(name));
    if (!known || file == files.end()) {
      Send(connection, 404, "not here");
    } else if (!redirect_to.empty() && !elsewhere) {
      Send(connection, 302, "", absl::StrCat("Location: ", redirect_to, "/cdn/", name, "\r\n"));
    } else {
      int64_t from = 0;
      absl::string_view digits = range;
      if (absl::ConsumePrefix(&digits, "bytes=") && absl::ConsumeSuffix(&digits, "-")) {
        EXPECT_TRUE(absl::SimpleAtoi(digits, &from));
      }
      const auto other = served_as.find(file->first);
      SendFile(connection, other == served_as.end() ? file->second : other->second,
               ignores_ranges ? 0 : from);
    }
  }
  return 1;
}

void FakeHub::SendFile(mg_connection* connection, const std::string& content, int64_t from) {
  const std::string body =
      content.substr(std::min<size_t>(static_cast<size_t>(from), content.size()));
  const std::string head =
      absl::StrCat("HTTP/1.1 ", from > 0 ? 206 : 200, " X\r\nContent-Length: ", body.size(),
                   "\r\nConnection: close\r\n\r\n");
  mg_write(connection, head.data(), head.size());
  size_t size = body.size();
  if (cut_after >= 0) {
    size = std::min(size, static_cast<size_t>(cut_after));
    cut_after = -1;
  }
  mg_write(connection, body.data(), size);
}

}  // namespace lwq::testing

// A hub on the loopback, strict about what it is asked, whose answers a test spoils.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/mutex.h"

struct mg_context;
struct mg_connection;

namespace lwq::testing {

class FakeHub {
 public:
  static constexpr char kCommit[] = "0123456789abcdef0123456789abcdef01234567";

  // One for the process, because it takes seconds to end; as if it were new.
  static FakeHub& Fresh();

  std::string endpoint() const { return endpoint_; }

  // What a test decides. Guarded by nothing: set it while no request is under way.
  std::map<std::string, std::string> files;      // of "org/model" at any revision; by name
  std::map<std::string, std::string> listed_as;  // names that the listing has instead
  std::map<std::string, std::string> served_as;  // contents that are sent instead
  std::string token;                             // that has to be sent; empty: none may be
  bool large_by_sha256 = true;                   // safetensors are listed by SHA-256
  int fail_for = 0;                              // so many requests get 503
  int cut_after = -1;  // so many bytes of a file, once; then the connection is cut
  bool ignores_ranges = false;
  std::string redirect_to;  // base of another server that files are at; they may not get the token
  int64_t claimed_size = -1;  // of every file in the listing

  // What was asked: "GET /path", with " bytes=N-" of a range.
  std::vector<std::string> Requests() const;

 private:
  FakeHub();
  static int Serve(mg_connection* connection, void* self);
  int Answer(mg_connection* connection);
  std::string Listing() const;
  void SendFile(mg_connection* connection, const std::string& content, int64_t from);

  std::string endpoint_;
  mg_context* context_ = nullptr;
  mutable Mutex mu_;
  std::vector<std::string> requests_;
};

}  // namespace lwq::testing

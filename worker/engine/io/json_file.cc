// Checks JSON text with nlohmann's event parser, which is iterative: depth cannot exhaust the
// stack.
#include "worker/engine/io/json_file.h"

#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace lwq {
namespace {

using Json = nlohmann::json;

class LimitChecker : public nlohmann::json_sax<Json> {
 public:
  explicit LimitChecker(int max_depth) : max_depth_(max_depth) {}
  const std::string& problem() const { return problem_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return Fail("binary value"); }
  bool start_object(std::size_t) override { return Enter(); }
  bool start_array(std::size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }
  bool end_array() override { return Leave(); }
  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    return Fail(absl::StrCat("the key \"", absl::Utf8SafeCEscape(name.substr(0, 128)),
                             "\" occurs twice in one object"));
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Fail(absl::StrCat("not valid JSON at byte ", position));
  }

 private:
  bool Enter() {
    if (static_cast<int>(keys_.size()) >= max_depth_) {
      return Fail(absl::StrCat("nested deeper than ", max_depth_, " levels"));
    }
    keys_.emplace_back();
    return true;
  }
  bool Leave() {
    keys_.pop_back();
    return true;
  }
  bool Fail(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  const int max_depth_;
  std::vector<absl::flat_hash_set<std::string>> keys_;
  std::string problem_;
};

}  // namespace

absl::Status CheckJson(absl::string_view text, const JsonLimits& limits, absl::string_view where) {
  if (static_cast<int64_t>(text.size()) > limits.max_bytes) {
    return InvalidFailure(limits.reason,
                          absl::StrCat(where, ": ", text.size(), " bytes of JSON, at most ",
                                       limits.max_bytes, " are accepted"));
  }
  LimitChecker checker(limits.max_depth);
  if (Json::sax_parse(text.begin(), text.end(), &checker)) return absl::OkStatus();
  return InvalidFailure(limits.reason, absl::StrCat(where, ": ", checker.problem()));
}

absl::StatusOr<std::string> ReadJsonFile(const std::string& path, const JsonLimits& limits) {
  absl::StatusOr<std::string> text = ReadFile(path, limits.max_bytes);
  if (absl::IsInvalidArgument(text.status())) {
    return InvalidFailure(limits.reason, text.status().message());
  }
  LWQ_RETURN_IF_ERROR(text.status());
  LWQ_RETURN_IF_ERROR(CheckJson(*text, limits, path));
  return text;
}

}  // namespace lwq

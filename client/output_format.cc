#include "client/output_format.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace lwq::client {
namespace {

using Json = nlohmann::ordered_json;

// Texts that follow each other: whole ones, or one a line.
absl::StatusOr<std::vector<Json>> Parse(absl::string_view text) {
  std::vector<Json> documents;
  size_t begin = 0;
  int depth = 0;
  bool quoted = false, escaped = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (!escaped && c == '"') quoted = false;
      escaped = !escaped && c == '\\';
      continue;
    }
    if (c == '"') quoted = true;
    if (c == '{' || c == '[') ++depth;
    if (c != '}' && c != ']') continue;
    if (--depth != 0) continue;
    const absl::string_view one = text.substr(begin, i + 1 - begin);
    documents.push_back(Json::parse(one.begin(), one.end(), nullptr, /*allow_exceptions=*/false));
    if (documents.back().is_discarded()) return absl::InternalError("the output is no JSON");
    begin = i + 1;
  }
  if (depth != 0 || quoted || !absl::StripAsciiWhitespace(text.substr(begin)).empty()) {
    return absl::InternalError("the output is no JSON");
  }
  return documents;
}

// Whether YAML reads it as the string that it is.
bool IsPlain(const std::string& text) {
  if (text.empty() || !absl::ascii_isalpha(static_cast<unsigned char>(text[0]))) return false;
  for (const char* word : {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}) {
    if (absl::AsciiStrToLower(text) == word) return false;
  }
  // ".inf", hexadecimals and the like begin with no letter; "nan" and "inf" do.
  double number = 0;
  if (absl::SimpleAtod(text, &number)) return false;
  return std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '/' || c == '.';
  });
}

std::string Scalar(const Json& value) {
  if (value.is_string() && IsPlain(value.get<std::string>())) return value.get<std::string>();
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string Key(const std::string& key) { return IsPlain(key) ? key : Json(key).dump(); }

bool IsNested(const Json& value) { return value.is_structured() && !value.empty(); }

void Emit(const Json& value, int indent, std::string& out);

// What comes behind "key:" or "-".
void EmitValue(const Json& value, int indent, std::string& out) {
  if (!IsNested(value)) {
    absl::StrAppend(&out, " ", Scalar(value), "\n");
  } else {
    out += "\n";
    Emit(value, indent, out);
  }
}

void Emit(const Json& value, int indent, std::string& out) {
  const std::string space(static_cast<size_t>(indent), ' ');
  if (value.is_object()) {
    for (const auto& [key, child] : value.items()) {
      absl::StrAppend(&out, space, Key(key), ":");
      EmitValue(child, indent + 2, out);
    }
    return;
  }
  for (const Json& child : value) {
    if (!child.is_object() || child.empty()) {
      absl::StrAppend(&out, space, "-");
      EmitValue(child, indent + 2, out);
      continue;
    }
    // The first key of an object stands behind its dash.
    std::string object;
    Emit(child, indent + 2, object);
    object[static_cast<size_t>(indent)] = '-';
    out += object;
  }
}

void AddName(const Json& object, std::vector<std::string>& names) {
  auto name = object.find("name");
  if (name == object.end()) name = object.find("task");  // what a task is called by
  if (name == object.end() || !name->is_string()) return;
  const std::string text = name->get<std::string>();
  names.push_back(LogSafe(text.substr(text.rfind('/') + 1)));
}

}  // namespace

absl::StatusOr<std::string> JsonToYaml(absl::string_view json) {
  LWQ_ASSIGN_OR_RETURN(const std::vector<Json> documents, Parse(json));
  std::string out;
  for (const Json& document : documents) {
    if (documents.size() > 1) out += "---\n";
    if (IsNested(document)) {
      Emit(document, 0, out);
    } else {
      absl::StrAppend(&out, document.dump(), "\n");
    }
  }
  return out;
}

absl::StatusOr<std::string> NamesInJson(absl::string_view json) {
  LWQ_ASSIGN_OR_RETURN(const std::vector<Json> documents, Parse(json));
  std::vector<std::string> names;
  for (const Json& document : documents) {
    if (document.is_object()) AddName(document, names);
    if (!names.empty()) continue;
    for (const Json& list : document.is_array() ? Json::array({document}) : document) {
      if (!list.is_array()) continue;
      for (const Json& element : list) {
        if (element.is_object()) AddName(element, names);
      }
    }
  }
  std::string out;
  for (const std::string& name : names) absl::StrAppend(&out, name, "\n");
  return out;
}

}  // namespace lwq::client

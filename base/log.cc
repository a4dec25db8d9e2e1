#include "base/log.h"

#include <algorithm>
#include <memory>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/utf8.h"
#include "spdlog/pattern_formatter.h"
#include "spdlog/sinks/stdout_sinks.h"

namespace lwq {
namespace {

void AppendEscaped(absl::string_view text, std::string& line) {
  for (char c : text) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      absl::StrAppend(&line, "\\", absl::string_view(&c, 1));
    } else if (byte < 0x20) {
      absl::StrAppend(&line, "\\u00", absl::Hex(byte, absl::kZeroPad2));
    } else {
      line.push_back(c);
    }
  }
}

// How many bytes of a character that a terminal takes for an order, or that changes in which order
// the others are read, `text` begins with; 0: another character.
size_t ControlBytes(absl::string_view text) {
  const unsigned char first = static_cast<unsigned char>(text[0]);
  if (first < 0x20 || first == 0x7f) return 1;
  // U+0080 to U+009F.
  if (first == 0xc2 && text.size() > 1 && static_cast<unsigned char>(text[1]) < 0xa0) return 2;
  for (const absl::string_view mark :
       {"\u061c", "\u200e", "\u200f", "\u2028", "\u2029", "\u202a", "\u202b", "\u202c", "\u202d",
        "\u202e", "\u2066", "\u2067", "\u2068", "\u2069"}) {
    if (absl::StartsWith(text, mark)) return mark.size();
  }
  return 0;
}

bool IsFieldName(absl::string_view name) {
  const std::set<absl::string_view> taken = {"time", "level", "process", "message"};
  return !name.empty() && taken.count(name) == 0 &&
         std::all_of(name.begin(), name.end(), [](char c) { return absl::ascii_islower(c); });
}

// What a message says as job=j-1 is a field besides, so that logs can be searched by it.
void AppendFields(absl::string_view message, std::string& line) {
  std::set<absl::string_view> given;
  for (absl::string_view word : absl::StrSplit(message, ' ')) {
    const size_t equals = word.find('=');
    if (equals == absl::string_view::npos) continue;
    const absl::string_view name = word.substr(0, equals);
    absl::string_view value = word.substr(equals + 1);
    while (!value.empty() && absl::StrContains(",:;)", value.back())) value.remove_suffix(1);
    if (value.empty() || !IsFieldName(name) || !given.insert(name).second) continue;
    absl::StrAppend(&line, ",\"", name, "\":\"");
    AppendEscaped(value, line);
    line.push_back('"');
  }
}

// One JSON object a line. spdlog's pattern cannot escape a payload, so this formatter does.
class JsonFormatter : public spdlog::formatter {
 public:
  explicit JsonFormatter(std::string process)
      : process_(std::move(process)),
        time_("%Y-%m-%dT%H:%M:%S.%fZ", spdlog::pattern_time_type::utc, "") {}

  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    spdlog::memory_buf_t time;
    time_.format(message, time);
    auto level = spdlog::level::to_string_view(message.level);
    std::string line =
        absl::StrCat("{\"time\":\"", absl::string_view(time.data(), time.size()), "\",\"level\":\"",
                     absl::string_view(level.data(), level.size()), "\",\"process\":\"", process_,
                     "\",\"message\":\"");
    const absl::string_view payload(message.payload.data(), message.payload.size());
    const std::string text = RepairUtf8(payload);
    AppendEscaped(text, line);
    line.push_back('"');
    AppendFields(text, line);
    line.append("}\n");
    out.append(line.data(), line.data() + line.size());
  }

  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<JsonFormatter>(process_);
  }

 private:
  const std::string process_;
  spdlog::pattern_formatter time_;
};

}  // namespace

void InitLogging(absl::string_view process, LogFormat format, absl::string_view level) {
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  auto logger = std::make_shared<spdlog::logger>(std::string(process), sink);
  if (format == LogFormat::kJson) {
    logger->set_formatter(std::make_unique<JsonFormatter>(std::string(process)));
  } else {
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %L %n: %v", spdlog::pattern_time_type::utc);
  }
  logger->set_level(spdlog::level::from_str(std::string(level)));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

std::string WithoutControls(absl::string_view text) {
  std::string safe;
  for (size_t at = 0; at < text.size(); ++at) {
    const unsigned char byte = static_cast<unsigned char>(text[at]);
    const size_t control = ControlBytes(text.substr(at));
    for (size_t i = 0; i < control; ++i) {
      absl::StrAppend(&safe, "\\x",
                      absl::Hex(static_cast<unsigned char>(text[at + i]), absl::kZeroPad2));
    }
    if (control == 0) safe.push_back(static_cast<char>(byte));
    if (control > 1) at += control - 1;
  }
  return safe;
}

std::string LogSafe(absl::string_view text) {
  constexpr size_t kMaxBytes = 2000;
  std::string safe = WithoutControls(CutToCharacters(text, kMaxBytes));
  if (text.size() > kMaxBytes) safe.append("...");
  return safe;
}

}  // namespace lwq

#include "base/log.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "spdlog/pattern_formatter.h"
#include "spdlog/sinks/stdout_sinks.h"

namespace lwq {
namespace {

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
    for (char c : absl::string_view(message.payload.data(), message.payload.size())) {
      const unsigned char byte = static_cast<unsigned char>(c);
      if (c == '"' || c == '\\') {
        absl::StrAppend(&line, "\\", absl::string_view(&c, 1));
      } else if (byte < 0x20) {
        absl::StrAppend(&line, "\\u00", absl::Hex(byte, absl::kZeroPad2));
      } else {
        line.push_back(c);
      }
    }
    line.append("\"}\n");
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

std::string LogSafe(absl::string_view text) {
  constexpr size_t kMaxBytes = 2000;
  std::string safe;
  for (char c : text.substr(0, kMaxBytes)) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      absl::StrAppend(&safe, "\\x", absl::Hex(byte, absl::kZeroPad2));
    } else {
      safe.push_back(c);
    }
  }
  if (text.size() > kMaxBytes) safe.append("...");
  return safe;
}

}  // namespace lwq

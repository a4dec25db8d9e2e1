#include "base/log.h"

#include <nlohmann/json.hpp>
#include <string>

#include "gtest/gtest.h"

namespace lwq {
namespace {

TEST(LogSafeTest, ControlCharactersAreWrittenOutAndQuotesStay) {
  EXPECT_EQ(LogSafe("tensor \"a\\b\"\n\x1b[31m"), "tensor \"a\\b\"\\x0a\\x1b[31m");
}

// U+009B begins an order of a terminal as ESC [ does; U+202E turns what follows around.
TEST(LogSafeTest, ControlsOfMoreBytesAreWrittenOutAndOtherLettersStay) {
  EXPECT_EQ(LogSafe("a\u009b31m\u202eb\u00e9\u20ac"), "a\\xc2\\x9b31m\\xe2\\x80\\xaeb\u00e9\u20ac");
  EXPECT_EQ(WithoutControls(std::string(3000, 'x') + "\x1b").size(), 3004u) << "it cuts nothing";
}

TEST(LogSafeTest, NoLetterIsCutInTwo) {
  std::string text;
  for (int i = 0; i < 1500; ++i) text += "\u00e9";
  EXPECT_EQ(LogSafe("x" + text), "x" + text.substr(0, 1998) + "...");
}

TEST(LogSafeTest, TwiceIsAsOnce) {
  const std::string once = LogSafe("a\tb \"c\" \\d");
  EXPECT_EQ(LogSafe(once), once);
}

TEST(LogSafeTest, LongTextIsCut) { EXPECT_EQ(LogSafe(std::string(5000, 'x')).size(), 2003u); }

nlohmann::json LoggedAsJson(const std::string& message) {
  const auto before = spdlog::default_logger();
  ::testing::internal::CaptureStderr();
  InitLogging("test", LogFormat::kJson, "info");
  spdlog::info("{}", message);
  spdlog::set_default_logger(before);
  return nlohmann::json::parse(::testing::internal::GetCapturedStderr());
}

TEST(JsonLogTest, NamesWithValuesAreFieldsBesidesTheMessage) {
  const std::string message = "job=j-1 task=3f2a kind=quantize done worker=w\"1, request=a=b";
  const nlohmann::json line = LoggedAsJson(message);
  EXPECT_EQ(line.at("message"), message);
  EXPECT_EQ(line.at("job"), "j-1");
  EXPECT_EQ(line.at("worker"), "w\"1");
  EXPECT_EQ(line.at("request"), "a=b");
  EXPECT_EQ(line.at("level"), "info");
}

TEST(JsonLogTest, ALineIsJsonWhateverBytesAreInIt) {
  EXPECT_EQ(LoggedAsJson("a\xff"
                         "b name=\xc3")
                .at("message"),
            "a\xef\xbf\xbd"
            "b name=\xef\xbf\xbd");
}

// What somebody has written into a message changes none of the line's own fields, and gives no name
// twice.
TEST(JsonLogTest, TheLinesOwnFieldsStay) {
  const nlohmann::json line =
      LoggedAsJson("level=error process=x time=0 job=a job=b =c d= Upper=1 x\"y=2");
  EXPECT_EQ(line.at("level"), "info");
  EXPECT_EQ(line.at("process"), "test");
  EXPECT_EQ(line.at("job"), "a");
  EXPECT_EQ(line.size(), 5u);
}

}  // namespace
}  // namespace lwq

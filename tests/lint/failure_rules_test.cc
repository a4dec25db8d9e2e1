// Reasons of failures have one home, base/failure.def: its lines are well formed and used, and no
// source gives, records or compares a reason by its text.
#include <algorithm>
#include <regex>
#include <set>

#include "base/reasons.h"
#include "gtest/gtest.h"
#include "tests/lint/source_tree.h"

namespace lwq::testing {
namespace {

// "kBlobMissing" of "BLOB_MISSING".
std::string ConstantOf(const std::string& reason) {
  std::string constant = "k";
  bool upper = true;
  for (char c : reason) {
    if (c == '_') {
      upper = true;
    } else {
      constant += static_cast<char>(upper ? c : std::tolower(c));
      upper = false;
    }
  }
  return constant;
}

struct Line {
  std::string constant, reason;
};

std::vector<Line> LinesOfDef() {
  const std::regex line("^LWQ_REASON\\((\\w+), (\\w+),");
  std::vector<Line> lines;
  for (const std::string& text : Lines(ReadText(LWQ_SOURCE_DIR "/base/failure.def"))) {
    std::smatch match;
    if (std::regex_search(text, match, line)) lines.push_back({match[1], match[2]});
  }
  return lines;
}

// Reasons spelled as text: made, compared or recorded with a literal.
std::vector<std::string> LiteralReasons(const std::string& text) {
  static const std::regex& made =
      *new std::regex("Fail(?:ure)?\\(\\s*(?:(?!reasons::)[\\w:.()]+,\\s*)?\"([A-Z][A-Z0-9_]*)\"");
  static const std::regex& recorded = *new std::regex("\\bset_reason\\(\\s*\"([A-Z][A-Z0-9_]*)\"");
  static const std::regex& compared = *new std::regex(
      "(?:\\breason(?:\\(\\))?|\\bReasonOf\\([^()]*\\)) [=!]= \"([A-Z][A-Z0-9_]*)\"");
  std::vector<std::string> found;
  for (const std::regex* pattern : {&made, &recorded, &compared}) {
    for (std::sregex_iterator it(text.begin(), text.end(), *pattern), end; it != end; ++it) {
      found.push_back((*it)[1]);
    }
  }
  return found;
}

std::vector<SourceFile> Sources() {
  std::vector<SourceFile> all;
  for (const char* root : {"base", "worker", "server", "client", "records", "bench", "examples"}) {
    for (SourceFile& file : SourceFiles(root, {".h", ".cc"})) all.push_back(std::move(file));
  }
  return all;
}

TEST(FailureRulesTest, EveryLineIsWellFormed) {
  const std::vector<Line> lines = LinesOfDef();
  ASSERT_EQ(lines.size(), AllReasons().size()) << "a line is not spelled as the others are";
  std::set<std::string> reasons;
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i].constant, ConstantOf(lines[i].reason));
    EXPECT_TRUE(reasons.insert(lines[i].reason).second) << lines[i].reason << " occurs twice";
    EXPECT_EQ(AllReasons()[i]->name, lines[i].reason);
    EXPECT_FALSE(AllReasons()[i]->help.empty()) << lines[i].reason;
    EXPECT_EQ(AllReasons()[i]->help.find('\n'), absl::string_view::npos) << lines[i].reason;
  }
  // Sorted up to the lines of the codes, which are sorted too.
  const auto by_name = [](const Line& a, const Line& b) { return a.reason < b.reason; };
  const auto codes = std::is_sorted_until(lines.begin(), lines.end(), by_name);
  EXPECT_TRUE(std::is_sorted(codes, lines.end(), by_name))
      << "base/failure.def is not sorted at " << codes->reason;
}

TEST(FailureRulesTest, EveryLineIsUsed) {
  std::string sources;
  for (const SourceFile& file : Sources()) sources += file.text;
  for (const Line& line : LinesOfDef()) {
    bool of_a_code = false;
    for (int code = 1; code <= 16; ++code) {
      of_a_code |= absl::StatusCodeToString(static_cast<absl::StatusCode>(code)) == line.reason;
    }
    EXPECT_TRUE(of_a_code || sources.find("reasons::" + line.constant) != std::string::npos ||
                sources.find('"' + line.reason + '"') != std::string::npos)
        << "nothing gives the reason " << line.reason << " of base/failure.def";
  }
}

TEST(FailureRulesTest, NoSourceSpellsAReason) {
  for (const SourceFile& file : Sources()) {
    for (const std::string& literal : LiteralReasons(file.text)) {
      ADD_FAILURE() << file.path << " spells the reason \"" << literal
                    << "\": give it a line in base/failure.def and use reasons::"
                    << ConstantOf(literal);
    }
  }
}

// What the rule is there to stop.
TEST(FailureRulesTest, APlantedLiteralIsCaught) {
  for (const char* planted :
       {"return Failure(absl::StatusCode::kInternal, \"MADE_UP\", text);",
        "return InvalidFailure(\n    \"MADE_UP\", text);", "failure.set_reason(\"MADE_UP\");",
        "if (failure.reason() == \"MADE_UP\") return;",
        "if (ReasonOf(status) == \"MADE_UP\") return;"}) {
    EXPECT_EQ(LiteralReasons(planted), std::vector<std::string>{"MADE_UP"}) << planted;
  }
  EXPECT_EQ(FindReason("MADE_UP"), nullptr);
  EXPECT_TRUE(LiteralReasons("return Failure(reasons::kMadeUp, \"MADE_UP\");").empty());
}

}  // namespace
}  // namespace lwq::testing

// Rules of the tree that no compiler holds: registries match their files, tests mirror sources, and
// what may not be in a file is not.
#include <cctype>
#include <map>
#include <regex>
#include <set>

#include "gtest/gtest.h"
#include "tests/lint/source_tree.h"

namespace lwq::testing {
namespace {

constexpr size_t kMaxLines = 500;

struct Registry {
  SourceFile file;
  std::vector<std::string> entries;
};

std::vector<Registry> Registries() {
  const std::regex entry("^LWQ_[A-Z_]+\\((\\w+)");
  std::vector<Registry> registries;
  for (const char* root : {"worker", "server", "client"}) {
    for (const SourceFile& file : SourceFiles(root, {".def"})) {
      Registry registry{file, {}};
      for (const std::string& line : Lines(file.text)) {
        std::smatch match;
        if (std::regex_search(line, match, entry)) registry.entries.push_back(match[1]);
      }
      registries.push_back(std::move(registry));
    }
  }
  return registries;
}

std::vector<SourceFile> Sources() {
  std::vector<SourceFile> all;
  for (const char* root : {"base", "records", "worker", "server", "client"}) {
    for (SourceFile& file : SourceFiles(root, {".h", ".cc"})) all.push_back(std::move(file));
  }
  return all;
}

// "kDownCommand" -> "down_command"; snake case stays.
std::string Snake(const std::string& name) {
  std::string snake;
  for (size_t i = name[0] == 'k' && name.size() > 1 && std::isupper(name[1]) ? 1 : 0;
       i < name.size(); ++i) {
    if (std::isupper(name[i]) && !snake.empty()) snake += '_';
    snake += static_cast<char>(std::tolower(name[i]));
  }
  return snake;
}

// The entry that a definition is of: "rtn" of quantizer_rtn, "uniform" of AllocatorDefs::uniform,
// "zd_larger" (not "zd") of zd_larger_scorer; "" when it has no line.
std::string EntryOf(const std::string& variable, const std::set<std::string>& entries) {
  const std::string name = "_" + Snake(variable) + "_";
  std::string best;
  for (const std::string& entry : entries) {
    const std::string part = "_" + Snake(entry) + "_";
    const bool at_an_end = name.compare(0, part.size(), part) == 0 ||
                           (name.size() >= part.size() &&
                            name.compare(name.size() - part.size(), part.size(), part) == 0);
    if (at_an_end && entry.size() > best.size()) best = entry;
  }
  return best;
}

// Variables of "const QuantizerDef quantizer_rtn = {", "const AllocatorDef AllocatorDefs::uniform =
// {".
std::vector<std::string> DefinedIn(const std::string& text) {
  const std::regex definition("\\bconst \\w+Def (?:\\w+::)*(\\w+)\\s*(?:=|\\{)");
  std::vector<std::string> names;
  for (std::sregex_iterator it(text.begin(), text.end(), definition), end; it != end; ++it) {
    names.push_back((*it)[1]);
  }
  return names;
}

TEST(RegistryRulesTest, EveryLineHasItsDefinitionAndEveryDefinitionItsLine) {
  const std::vector<SourceFile> sources = Sources();
  const std::vector<Registry> registries = Registries();
  EXPECT_GE(registries.size(), 2u);
  for (const Registry& registry : registries) {
    const std::set<std::string> listed(registry.entries.begin(), registry.entries.end());
    EXPECT_FALSE(listed.empty()) << registry.file.path;
    EXPECT_EQ(listed.size(), registry.entries.size()) << registry.file.path << " repeats a line";
    EXPECT_TRUE(std::is_sorted(registry.entries.begin(), registry.entries.end()))
        << registry.file.path << " is not sorted";
    // Of all registries beside the sources: a folder may have more than one.
    std::set<std::string> beside;
    for (const Registry& other : registries) {
      if (other.file.folder != registry.file.folder) continue;
      beside.insert(other.entries.begin(), other.entries.end());
    }
    std::set<std::string> defining;
    for (const SourceFile& source : sources) {
      if (source.folder != registry.file.folder || source.extension != ".cc") continue;
      for (const std::string& variable : DefinedIn(source.text)) {
        const std::string entry = EntryOf(variable, beside);
        EXPECT_NE(entry, "") << source.path << " defines " << variable << ", which has no line in "
                             << registry.file.path;
        if (listed.count(entry) > 0) defining.insert(entry);
      }
    }
    EXPECT_EQ(defining, listed) << registry.file.path << " lists what no file beside it defines";
  }
}

// Behaviour belongs to the Def, not to its name: a comparison elsewhere is a second registry.
TEST(RegistryRulesTest, NamesAreComparedNowhere) {
  const std::vector<SourceFile> sources = Sources();
  std::map<std::string, std::string> names;  // name -> file that defines it
  const std::regex name_field("\\.name\\s*=\\s*\"([^\"]+)\"");
  for (const Registry& registry : Registries()) {
    if (!IsUnder(registry.file.path, "worker/engine")) continue;  // a command's name is a word
    for (const SourceFile& source : sources) {
      if (source.folder != registry.file.folder || source.extension != ".cc") continue;
      for (std::sregex_iterator it(source.text.begin(), source.text.end(), name_field), end;
           it != end; ++it) {
        names[(*it)[1]] = source.path;
      }
    }
  }
  EXPECT_FALSE(names.empty());
  // A literal ends on its line: std::regex recurses once a character.
  const std::regex comparison("[=!]=\\s*\"([^\"\n]+)\"|\"([^\"\n]+)\"\\s*[=!]=");
  for (const SourceFile& source : sources) {
    // Words of the formats of others: a tokenizer's prepend_scheme may be "first".
    if (IsUnder(source.path, "worker/engine/tokenizer")) continue;
    for (std::sregex_iterator it(source.text.begin(), source.text.end(), comparison), end;
         it != end; ++it) {
      const std::string compared = (*it)[1].matched ? (*it)[1] : (*it)[2];
      const auto found = names.find(compared);
      if (found == names.end() || found->second == source.path) continue;
      ADD_FAILURE() << source.path << " compares \"" << compared
                    << "\": ask the Def for what differs instead";
    }
  }
}

TEST(RegistryRulesTest, EveryTestMirrorsASource) {
  // Suites about the whole, or about the tests themselves.
  const std::vector<std::string> free = {"tests/conformance", "tests/cluster", "tests/failpoints",
                                         "tests/lint", "tests/peers", "tests/simulation",
                                         "tests/testing", "tests/fuzz",
                                         // Upload and download, each the other's check.
                                         "tests/client/transfer_test.cc"};
  std::set<std::string> stems;
  for (const SourceFile& source : Sources()) stems.insert(source.folder + "/" + source.stem);
  for (const SourceFile& test : SourceFiles("tests", {".cc"})) {
    const size_t suffix = test.stem.rfind("_test");
    if (suffix == std::string::npos || suffix + 5 != test.stem.size()) continue;
    if (std::any_of(free.begin(), free.end(),
                    [&](const std::string& folder) { return IsUnder(test.path, folder); })) {
      continue;
    }
    // tokenizer_test.cc, or tokenizer_golden_test.cc for one aspect of it.
    const std::string mirrored =
        test.folder.substr(std::string("tests/").size()) + "/" + test.stem.substr(0, suffix);
    EXPECT_TRUE(std::any_of(stems.begin(), stems.end(),
                            [&](const std::string& stem) {
                              return mirrored == stem ||
                                     mirrored.compare(0, stem.size() + 1, stem + "_") == 0;
                            }))
        << test.path << " tests no " << mirrored << ".{h,cc}";
  }
}

// Comments send readers to docs/formats and docs/decisions: what they name is there.
TEST(RegistryRulesTest, DocumentsThatAreNamedExist) {
  const std::regex document("docs/(formats|decisions|results)/[\\w-]+\\.md");
  for (const SourceFile& file :
       SourceFiles("", {".h", ".cc", ".def", ".proto", ".py", ".cmake", ".txt", ".md"})) {
    for (std::sregex_iterator it(file.text.begin(), file.text.end(), document), end; it != end;
         ++it) {
      EXPECT_TRUE(std::filesystem::exists(std::string(LWQ_SOURCE_DIR "/") + it->str()))
          << file.path << " names " << it->str();
    }
  }
}

TEST(RegistryRulesTest, FilesAreShort) {
  for (const char* root : {"base", "worker", "server", "client", "tests", "bench", "proto"}) {
    for (const SourceFile& file : SourceFiles(root, {".h", ".cc", ".proto", ".py"})) {
      EXPECT_LE(Lines(file.text).size(), kMaxLines) << file.path;
    }
  }
}

TEST(RegistryRulesTest, NoFileIsACatchAll) {
  const std::regex catch_all("(^|_)(utils?|common|misc|helpers?)(_|$)");
  for (const SourceFile& file : SourceFiles("", {".h", ".cc", ".py"})) {
    EXPECT_FALSE(std::regex_search(file.stem, catch_all)) << file.path;
  }
}

TEST(RegistryRulesTest, NothingIsLeftForLaterOrTiedToOneMachine) {
  // Written in two parts so that this file passes its own rule.
  const std::regex later(
      "\\b(TO"
      "DO|FIX"
      "ME|XX"
      "X)\\b");
  const std::regex home("(^|[\\s\"'=(:])/(home|Users)/[A-Za-z0-9_.-]+/");
  const std::string checkout = LWQ_SOURCE_DIR "/";
  const std::string beside = checkout.substr(0, checkout.rfind('/', checkout.size() - 2) + 1);
  for (const SourceFile& file :
       SourceFiles("", {".h", ".cc", ".def", ".proto", ".py", ".sh", ".cmake", ".txt", ".md",
                        ".yml", ".yaml", ".json", ""})) {
    if (IsUnder(file.path, "tests/fuzz/corpus")) continue;  // a fuzzer's words
    EXPECT_FALSE(std::regex_search(file.text, later)) << file.path << " leaves work for later";
    EXPECT_FALSE(std::regex_search(file.text, home)) << file.path << " names a home folder";
    // A checkout in a folder such as /src/ or / would match too much.
    if (beside.size() > 6) {
      EXPECT_EQ(file.text.find(beside), std::string::npos) << file.path << " names " << beside;
    }
  }
}

}  // namespace
}  // namespace lwq::testing

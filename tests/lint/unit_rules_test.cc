// Files that a user's build compiles as one (cmake/lwq_unity.cmake) have no two names alike in
// their unnamed namespaces, whichever of a folder's files a unit holds.
#include <map>
#include <regex>
#include <set>
#include <string>

#include "gtest/gtest.h"
#include "tests/lint/source_tree.h"

namespace lwq::testing {
namespace {

// Folders whose files are compiled as one.
constexpr const char* kFolders[] = {"base",
                                    "base/rpc",
                                    "base/metrics",
                                    "records",
                                    "worker",
                                    "worker/runner",
                                    "worker/engine/io",
                                    "worker/engine/device",
                                    "worker/engine/model",
                                    "worker/engine/evidence",
                                    "worker/engine/score",
                                    "worker/engine/eval",
                                    "worker/engine/artifact",
                                    "worker/engine/quant",
                                    "worker/engine/tokenizer",
                                    "worker/engine/plan",
                                    "worker/engine/format",
                                    "worker/engine/gguf",
                                    "server",
                                    "server/dispatch",
                                    "server/store",
                                    "server/blob",
                                    "server/service",
                                    "server/backup",
                                    "client",
                                    "client/hub",
                                    "client/commands"};

// What stands in a file's unnamed namespaces at the left margin, of which there can be one: by
// name, functions by name and types of parameters.
std::map<std::string, std::string> NamesOf(const SourceFile& file) {
  static const auto& constant = *new std::regex(
      R"(^(?:constexpr|const|constinit|static|thread_local) [^(={]*\b(\w+)(?:\[\])* ?[={].*)");
  static const auto& type = *new std::regex(R"(^(?:class|struct|enum class) (\w+).*)");
  static const auto& function = *new std::regex(R"(^[A-Za-z][\w:<>,&* ]*[ &*](\w+)(\(.*)$)");
  static const auto& parameter = *new std::regex(R"(( |&|\*)\w+(,|\)))");
  std::map<std::string, std::string> names;
  bool inside = false;
  std::string open;  // a function whose parameters go on in the next line
  for (const std::string& line : Lines(file.text)) {
    if (line == "namespace {") inside = true;
    if (line == "}  // namespace") inside = false;
    if (!inside) continue;
    std::smatch match;
    const std::string whole = open.empty() ? line : open + line.substr(line.find_first_not_of(' '));
    open.clear();
    if (std::regex_match(whole, match, type) || std::regex_match(whole, match, constant)) {
      names[match[1]] = match[1];
    } else if (std::regex_match(whole, match, function)) {
      const std::string rest = match[2];
      if (rest.find(')') == std::string::npos) {
        open = whole + " ";
        continue;
      }
      const std::string types = rest.substr(0, rest.rfind(')') + 1);
      names[match[1].str() + std::regex_replace(types, parameter, "$1$2")] = match[1];
    }
  }
  return names;
}

TEST(UnitRules, FilesOfAUnitShareNoName) {
  const std::string unity = ReadText(LWQ_SOURCE_DIR "/cmake/lwq_unity.cmake");
  std::set<std::string> told;  // that are each file's own all the same, and files that stay alone
  const std::regex word("[A-Za-z_][\\w.]*");
  for (std::sregex_iterator it(unity.begin(), unity.end(), word), end; it != end; ++it) {
    told.insert(it->str());
  }
  size_t num_names = 0;
  for (const char* folder : kFolders) {
    std::map<std::string, std::string> first;  // file by name
    for (const SourceFile& file : SourceFiles(folder, {".cc"})) {
      if (file.folder != folder || told.count(file.stem + ".cc") > 0) continue;
      for (const auto& [key, name] : NamesOf(file)) {
        if (told.count(name) > 0) continue;
        const auto [other, added] = first.emplace(key, file.path);
        EXPECT_TRUE(added) << file.path << " and " << other->second << " both have " << name
                           << ", and are compiled as one: rename one of them, or name it behind "
                              "LOCAL in cmake/lwq_unity.cmake if no header has it";
        ++num_names;
      }
    }
  }
  EXPECT_GT(num_names, 1000u) << "the pattern finds nothing";
}

}  // namespace
}  // namespace lwq::testing

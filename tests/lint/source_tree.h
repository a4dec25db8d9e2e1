// The files of the checkout, as text, for the tests that hold rules of the tree.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

namespace lwq::testing {

struct SourceFile {
  std::string path;       // from the root of the checkout, with '/'
  std::string folder;     // "server/dispatch"; "" at the root
  std::string stem;       // "job_table"
  std::string extension;  // ".cc"
  std::string text;
};

inline std::string ReadText(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// Every file with one of `extensions` under `top` (a folder of the checkout, or "" for all of it),
// build outputs, hidden folders and bundled data left out. Sorted by path.
inline std::vector<SourceFile> SourceFiles(const std::string& top,
                                           const std::vector<std::string>& extensions) {
  namespace fs = std::filesystem;
  const fs::path root = LWQ_SOURCE_DIR;
  std::vector<SourceFile> files;
  std::error_code error;
  fs::recursive_directory_iterator it(root / top, error), end;
  for (; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (it->is_directory(error)) {
      const bool skipped =
          name[0] == '.' || name == "build" || name == "examples" || name == "__pycache__";
      if (skipped) it.disable_recursion_pending();
      continue;
    }
    const std::string extension = it->path().extension().string();
    if (std::find(extensions.begin(), extensions.end(), extension) == extensions.end()) continue;
    const fs::path relative = it->path().lexically_relative(root);
    files.push_back({relative.generic_string(), relative.parent_path().generic_string(),
                     relative.stem().string(), extension, ReadText(it->path())});
  }
  std::sort(files.begin(), files.end(),
            [](const SourceFile& a, const SourceFile& b) { return a.path < b.path; });
  return files;
}

inline std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// Whether `path` is `prefix`, or lies in the folder `prefix`.
inline bool IsUnder(const std::string& path, const std::string& prefix) {
  return path == prefix || (path.size() > prefix.size() && path[prefix.size()] == '/' &&
                            path.compare(0, prefix.size(), prefix) == 0);
}

}  // namespace lwq::testing

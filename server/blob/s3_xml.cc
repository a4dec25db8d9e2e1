#include "server/blob/s3_xml.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace lwq {

std::vector<absl::string_view> XmlElements(absl::string_view xml, absl::string_view name) {
  const std::string begin = absl::StrCat("<", name, ">");
  const std::string end = absl::StrCat("</", name, ">");
  std::vector<absl::string_view> elements;
  size_t at = 0;
  while (true) {
    const size_t from = xml.find(begin, at);
    if (from == absl::string_view::npos) return elements;
    const size_t to = xml.find(end, from);
    if (to == absl::string_view::npos) return elements;
    elements.push_back(xml.substr(from + begin.size(), to - from - begin.size()));
    at = to + end.size();
  }
}

std::string XmlText(absl::string_view xml, absl::string_view name) {
  const std::vector<absl::string_view> elements = XmlElements(xml, name);
  if (elements.empty()) return "";
  return absl::StrReplaceAll(elements.front(), {{"&lt;", "<"},
                                                {"&gt;", ">"},
                                                {"&quot;", "\""},
                                                {"&#34;", "\""},
                                                {"&apos;", "'"},
                                                {"&#39;", "'"},
                                                {"&amp;", "&"}});
}

}  // namespace lwq

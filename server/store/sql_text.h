// What the SQL stores share of their statements.
#pragma once

#include <string>

namespace lwq {

inline constexpr char kRecordColumns[] = "key, version, state, tag, ord, value, tenant";

// The smallest key greater than every key with the prefix; "" when there is none.
inline std::string PrefixEnd(std::string prefix) {
  while (!prefix.empty() && static_cast<unsigned char>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) prefix.back() = static_cast<char>(prefix.back() + 1);
  return prefix;
}

}  // namespace lwq

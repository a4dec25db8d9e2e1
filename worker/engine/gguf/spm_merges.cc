#include "worker/engine/gguf/spm_merges.h"

#include <algorithm>
#include <cstdint>
#include <tuple>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/reasons.h"

namespace lwq {
namespace {

constexpr size_t kMostCuts = size_t{1} << 21;

struct Cut {
  uint32_t piece, left_bytes;          // which piece, and where it is cut
  uint32_t left_length, right_length;  // in characters
  uint32_t left_id, right_id;
};

bool StartsCharacter(char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }

uint32_t CountCharacters(absl::string_view text) {
  return static_cast<uint32_t>(std::count_if(text.begin(), text.end(), StartsCharacter));
}

}  // namespace

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> MergesByScore(
    const std::vector<ScoredPiece>& pieces) {
  absl::flat_hash_map<absl::string_view, uint32_t> ids;
  ids.reserve(pieces.size());
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (pieces[id].made) ids.emplace(pieces[id].text, static_cast<uint32_t>(id));
  }
  std::vector<Cut> cuts;
  for (size_t id = 0; id < pieces.size(); ++id) {
    const absl::string_view text = pieces[id].text;
    if (!pieces[id].made) continue;
    const uint32_t length = CountCharacters(text);
    uint32_t left_length = 0;
    for (size_t at = 1; at < text.size(); ++at) {
      if (!StartsCharacter(text[at])) continue;
      ++left_length;
      const auto left = ids.find(text.substr(0, at));
      if (left == ids.end()) continue;
      const auto right = ids.find(text.substr(at));
      if (right == ids.end()) continue;
      if (cuts.size() == kMostCuts) {
        return Failure(reasons::kTokenizerInvalid,
                       absl::StrCat("the pieces of the vocabulary can be cut in more than ",
                                    kMostCuts, " ways"));
      }
      cuts.push_back({static_cast<uint32_t>(id), static_cast<uint32_t>(at), left_length,
                      length - left_length, left->second, right->second});
    }
  }
  std::sort(cuts.begin(), cuts.end(), [&pieces](const Cut& a, const Cut& b) {
    const auto key = [&pieces](const Cut& cut) {
      return std::tuple(-pieces[cut.piece].score, -static_cast<int64_t>(cut.left_length),
                        -static_cast<int64_t>(cut.right_length), cut.piece, cut.left_id,
                        cut.right_id);
    };
    return key(a) < key(b);
  });
  std::vector<std::pair<std::string, std::string>> merges;
  merges.reserve(cuts.size());
  for (const Cut& cut : cuts) {
    const absl::string_view text = pieces[cut.piece].text;
    merges.emplace_back(text.substr(0, cut.left_bytes), text.substr(cut.left_bytes));
  }
  return merges;
}

}  // namespace lwq

#include "worker/engine/eval/choice_pass.h"

#include <algorithm>
#include <iterator>

namespace lwq {

void ChoicePass::AddTargets(int64_t row_before, int64_t first_row,
                            const std::vector<int32_t>& tokens, size_t item, size_t option) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    const int64_t row = i == 0 ? row_before : first_row + static_cast<int64_t>(i) - 1;
    owners_.push_back({{row, tokens[i]}, item, option});
  }
}

bool ChoicePass::Join(int64_t begin, int64_t end) {
  const auto next = std::upper_bound(family_begins_.begin(), family_begins_.end(), begin);
  if (end - *std::prev(next) > chunk_tokens_) return false;
  family_begins_.erase(next, family_begins_.end());
  return true;
}

void ChoicePass::Add(const EncodedPair& pair, size_t item, size_t option) {
  const std::vector<int32_t>& tail = pair.continuation;
  const int64_t input_size = static_cast<int64_t>(pair.context.size() + tail.size()) - 1;
  // What is cut from the left depends on the continuation's length: only contexts that have the
  // same beginning left are shared.
  const int64_t cut = std::max<int64_t>(0, input_size - max_length_);
  std::vector<int32_t> context(pair.context.begin() + cut, pair.context.end());
  if (input_size - cut > chunk_tokens_) {
    // Alone it passes in parts; with others behind it it would not.
    const int64_t first_row = batch_.num_tokens() + static_cast<int64_t>(context.size());
    context.insert(context.end(), tail.begin(), tail.end() - 1);
    family_begins_.push_back(batch_.num_tokens());
    batch_.Add(context);
    AddTargets(first_row - 1, first_row, tail, item, option);
    return;
  }
  const auto [entry, is_new] = segment_of_context_.try_emplace(context, 0);
  const int64_t end = batch_.num_tokens() + static_cast<int64_t>(tail.size()) - 1;
  if (is_new || !Join(batch_.segments[entry->second].begin, end)) {
    family_begins_.push_back(batch_.num_tokens());
    entry->second = batch_.Add(context);
  }
  const int parent = entry->second;
  const Segment before = batch_.segments[parent];
  const int64_t first_row = batch_.num_tokens();
  if (tail.size() > 1) {
    batch_.Add(absl::MakeConstSpan(tail).subspan(0, tail.size() - 1), parent);
  }
  AddTargets(before.begin + before.size - 1, first_row, tail, item, option);
}

std::vector<TargetOwner> ChoicePass::Owners() const {
  std::vector<TargetOwner> sorted = owners_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const TargetOwner& a, const TargetOwner& b) {
    return a.target.row < b.target.row;
  });
  return sorted;
}

}  // namespace lwq

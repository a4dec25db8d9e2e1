#include "worker/engine/eval/choice_pass.h"

#include <numeric>

#include "tests/testing/status_matchers.h"
#include "worker/engine/model/token_chunks.h"

namespace lwq {
namespace {

std::vector<int32_t> Tokens(int first, int count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// The tokens that the row of each target has before it, itself included.
std::vector<int32_t> Seen(const TokenBatch& batch, int64_t row) {
  for (const Segment& segment : batch.segments) {
    if (row < segment.begin || row >= segment.begin + segment.size) continue;
    std::vector<int32_t> seen;
    if (segment.parent >= 0) {
      const Segment& parent = batch.segments[static_cast<size_t>(segment.parent)];
      seen = Seen(batch, parent.begin + parent.size - 1);
    }
    seen.insert(seen.end(), batch.tokens.begin() + segment.begin, batch.tokens.begin() + row + 1);
    return seen;
  }
  return {};
}

class ChoicePassTest : public ::testing::TestWithParam<int64_t> {};

// Whatever a decoder takes at a time: every token is predicted from all that is before it, and what
// goes through the layers at once is no more than that, or one sequence, which is cut further.
TEST_P(ChoicePassTest, KeepsToTheChunkAndPredictsFromTheWholeContext) {
  const int64_t chunk_tokens = GetParam();
  ChoicePass pass(/*max_length=*/60, chunk_tokens);
  std::vector<std::vector<EncodedPair>> items;
  for (int i = 0; i < 12; ++i) {
    std::vector<EncodedPair>& options = items.emplace_back();
    // One context in three items is the same.
    const std::vector<int32_t> context = i % 3 == 0 ? Tokens(0, 3) : Tokens(1000 * i, 5 * i);
    for (int o = 0; o < 4; ++o) options.push_back({context, Tokens(100 * i + 10 * o, 1 + 2 * o)});
    for (size_t o = 0; o < options.size(); ++o) pass.Add(options[o], static_cast<size_t>(i), o);
  }
  std::vector<std::vector<size_t>> predicted(12, std::vector<size_t>(4, 0));
  for (const TargetOwner& owner : pass.Owners()) {
    const EncodedPair& pair = items[owner.item][owner.option];
    const size_t at = predicted[owner.item][owner.option]++;
    EXPECT_EQ(owner.target.token, pair.continuation[at]);
    std::vector<int32_t> before = pair.context;
    before.insert(before.end(), pair.continuation.begin(),
                  pair.continuation.begin() + static_cast<ptrdiff_t>(at));
    const size_t cut = pair.context.size() + pair.continuation.size() - 1;
    if (cut > 60) before.erase(before.begin(), before.begin() + static_cast<ptrdiff_t>(cut - 60));
    EXPECT_EQ(Seen(pass.batch(), owner.target.row), before) << owner.item << " " << owner.option;
  }
  for (size_t i = 0; i < items.size(); ++i) {
    for (size_t o = 0; o < 4; ++o) EXPECT_EQ(predicted[i][o], items[i][o].continuation.size());
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const std::vector<TokenChunk> chunks,
                           CutIntoChunks(pass.batch(), chunk_tokens, nullptr));
  for (const TokenChunk& chunk : chunks) {
    EXPECT_TRUE(chunk.size <= chunk_tokens || chunk.segments.size() == 1)
        << chunk.size << " tokens in " << chunk.segments.size() << " sequences";
  }
}

// Two contexts that many items share by turns: nothing can be cut unless one comes again.
TEST_P(ChoicePassTest, SharedContextsThatInterleaveAreCutApart) {
  const int64_t chunk_tokens = GetParam();
  ChoicePass pass(/*max_length=*/60, chunk_tokens);
  const std::vector<int32_t> contexts[] = {Tokens(0, 6), Tokens(100, 7)};
  for (size_t i = 0; i < 1000; ++i) {
    pass.Add({contexts[i % 2], Tokens(1000 + static_cast<int>(i), 4)}, i, 0);
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const std::vector<TokenChunk> chunks,
                           CutIntoChunks(pass.batch(), chunk_tokens, nullptr));
  for (const TokenChunk& chunk : chunks) EXPECT_LE(chunk.size, chunk_tokens);
  // Each continuation has three tokens of its own; contexts come again where there is no room.
  if (chunk_tokens >= 64) {
    EXPECT_LT(pass.batch().num_tokens(), 3000 * 3 / 2);
  }
}

INSTANTIATE_TEST_SUITE_P(Chunks, ChoicePassTest, ::testing::Values(16, 40, 64, 2048));

}  // namespace
}  // namespace lwq

// Datasets, requests, windows and figures against what lm-evaluation-harness recorded.
#include <fstream>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/hash.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/eval/dataset.h"
#include "worker/engine/eval/hellaswag_text.h"
#include "worker/engine/eval/perplexity.h"
#include "worker/engine/eval/request_encoding.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::HasSubstr;
using Json = nlohmann::json;

Json SharedJson(const std::string& relative) {
  std::ifstream file(testing::SharedDataPath(relative));
  return Json::parse(file);
}

// SHA-256 over every request: context, 0x1F, continuation, 0x1E.
std::string HashOfRequests(const ChoiceDataset& data) {
  Sha256 hash;
  for (const MultipleChoiceItem& item : data.items) {
    for (const ChoiceOption& option : item.options) {
      hash.Update(option.context + "\x1F" + option.continuation + "\x1E");
    }
  }
  return hash.FinishHex();
}

struct TaskFiles {
  const char* run;
  const char* rows;
  const char* labels;
};

TEST(RequestsTest, HashesOfWholeTasks) {
  LWQ_SKIP_WITHOUT_SHARED_DATA("lm-eval-golden/requests-and-results-v0.4.12.json");
  const Json golden = SharedJson("lm-eval-golden/requests-and-results-v0.4.12.json")["runs"];
  const TaskFiles tasks[] = {
      {"piqa/default-shot", "piqa/valid.jsonl", "piqa/valid-labels.lst"},
      {"arc_easy/default-shot", "arc_easy/test.jsonl", ""},
      {"hellaswag/default-shot", "hellaswag/val-1000.jsonl", ""},
      {"winogrande/default-shot", "winogrande/winogrande_xl-validation.jsonl", ""},
  };
  for (const TaskFiles& task : tasks) {
    LWQ_ASSERT_OK_AND_ASSIGN(const std::string rows,
                             ReadFile(testing::SharedDataPath(task.rows), 64 << 20));
    const std::string labels =
        *task.labels == 0 ? "" : *ReadFile(testing::SharedDataPath(task.labels), 1 << 20);
    LWQ_ASSERT_OK_AND_ASSIGN(const ChoiceDataset data, ReadChoiceDataset(rows, 0, labels));
    ASSERT_TRUE(golden.contains(task.run)) << task.run;
    EXPECT_EQ(HashOfRequests(data), golden[task.run]["sha256"].get<std::string>()) << task.run;
  }
}

TEST(RequestsTest, EncodePairVectors) {
  LWQ_SKIP_WITHOUT_SHARED_DATA("lm-eval-golden/encode-pair-vectors.json");
  LWQ_ASSERT_OK_AND_ASSIGN(const auto tokenizer,
                           LoadTokenizer(testing::SharedDataPath("tokenizers/llama2")));
  const Json golden = SharedJson("lm-eval-golden/encode-pair-vectors.json");
  for (const auto& [name, mode] : {std::pair("llama2_bos", BosMode::kTokenizer),
                                   std::pair("llama2_no_bos", BosMode::kNever)}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const RequestEncoder encoder,
                             RequestEncoder::Create(tokenizer.get(), mode));
    for (const Json& pair : golden["pairs"]) {
      if (!pair.contains(name) || !pair[name].contains("continuation_ids")) continue;
      LWQ_ASSERT_OK_AND_ASSIGN(const EncodedPair encoded,
                               encoder.EncodePair(pair["context"].get<std::string>(),
                                                  pair["continuation"].get<std::string>()));
      EXPECT_EQ(encoded.context.size(), pair[name]["context_tokens"].get<size_t>()) << pair;
      EXPECT_EQ(encoded.continuation, pair[name]["continuation_ids"].get<std::vector<int32_t>>())
          << pair;
    }
  }
}

TEST(RequestsTest, RollingWindowVectors) {
  LWQ_SKIP_WITHOUT_SHARED_DATA("lm-eval-golden/metric-vectors.json");
  const Json cases = SharedJson("lm-eval-golden/metric-vectors.json")["rolling_windows"];
  ASSERT_GE(cases.size(), 8u);
  for (const Json& c : cases) {
    if (c["context_len"] != 1) continue;
    std::vector<int32_t> tokens(c["tokens"].get<size_t>());
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
    const auto windows = RollingWindows(tokens, 999, c["max_length"].get<int64_t>());
    ASSERT_EQ(windows.size(), c["windows"].size());
    for (size_t i = 0; i < windows.size(); ++i) {
      EXPECT_EQ(windows[i].input, c["windows"][i][0].get<std::vector<int32_t>>());
      EXPECT_EQ(windows[i].predicted, c["windows"][i][1].get<std::vector<int32_t>>());
    }
  }
}

TEST(RequestsTest, TextRules) {
  EXPECT_EQ(CountWords(" a  b\u00a0c\n"), 5);  // empty pieces at both ends
  EXPECT_EQ(CountWords(""), 1);
  EXPECT_EQ(Capitalize("\u00e9COLE \u0130X"), "\u00c9cole i\u0307x");
  EXPECT_EQ(CleanHellaswag(" x [title] y [step] z  w [a\nb] "), "x. y z w [a\nb]");
}

TEST(RequestsTest, DivergenceFigures) {
  const DivergenceResult result = SummarizeDivergence({4, 1, 2, 3}, 3);
  EXPECT_DOUBLE_EQ(result.mean, 2.5);
  EXPECT_DOUBLE_EQ(result.median, 2.5);
  EXPECT_DOUBLE_EQ(result.p99, 3.97);
  EXPECT_NEAR(result.standard_error, 0.6454972243679028, 1e-15);
  EXPECT_DOUBLE_EQ(result.top1_agreement, 0.75);
}

TEST(RequestsTest, BadRowsNameTheirLine) {
  const std::pair<const char*, const char*> rows[] = {
      {"{\"context\": \"a\", \"choices\": [\"b\"], \"answer\": 0}\nnope", "line 2"},
      {"\n[1]", "line 2: not a JSON object"},
      {"{\"context\": \"a\", \"choices\": [], \"answer\": 0}", "\"choices\""},
      {"{\"context\": \"a\", \"choices\": [\"b\"], \"answer\": -1}", "\"answer\""},
      {"{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\"}", "label"},
      {"{\"x\": 1}", "no known form"},
      {"", "no items"},
  };
  for (const auto& [row, message] : rows) {
    EXPECT_THAT(ReadChoiceDataset(row, 0), FailsWith("DATASET_INVALID", HasSubstr(message)));
  }
  EXPECT_THAT(ReadDocuments("{\"text\": 3}", DatasetKind::kJsonLines),
              FailsWith("DATASET_INVALID", HasSubstr("line 1")));
  EXPECT_THAT(ReadDocuments("", DatasetKind::kText), FailsWith("DATASET_INVALID", HasSubstr("no")));
  EXPECT_THAT(ReadChoiceDataset(std::string(100000, '['), 0),
              FailsWith("DATASET_INVALID", HasSubstr("nested")));
}

TEST(RequestsTest, BosModes) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto tokenizer, LoadTokenizer(testing::SampleModelPath()));
  for (const auto& [mode, bos] :
       {std::pair(BosMode::kTokenizer, true), std::pair(BosMode::kAlways, true),
        std::pair(BosMode::kNever, false)}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const RequestEncoder encoder,
                             RequestEncoder::Create(tokenizer.get(), mode));
    LWQ_ASSERT_OK_AND_ASSIGN(const auto ids, encoder.EncodeText("It was"));
    EXPECT_EQ(ids.front() == 1, bos);
    LWQ_ASSERT_OK_AND_ASSIGN(const auto own, encoder.EncodeText("<s>It was"));
    EXPECT_EQ(own[0], 1);
    EXPECT_NE(own[1], 1);
  }
  EXPECT_THAT(ParseBosMode("sometimes"), FailsWith("BOS_UNKNOWN", HasSubstr("sometimes")));
}

}  // namespace
}  // namespace lwq

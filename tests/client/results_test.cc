#include "client/results.h"

#include "gmock/gmock.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::testing::HasSubstr;

v1::EvaluationResult Choice(const std::string& subject, double acc) {
  v1::EvaluationResult result;
  result.set_subject(subject);
  result.set_dataset("datasets/d-2");
  result.mutable_choice()->set_num_items(400);
  result.mutable_choice()->set_acc(acc);
  result.mutable_choice()->set_acc_norm(acc);
  return result;
}

v1::EvaluationResult Text(const std::string& subject, double perplexity, bool kl) {
  v1::EvaluationResult result;
  result.set_subject(subject);
  result.set_dataset("datasets/d-1");
  result.mutable_text()->set_token_perplexity(perplexity);
  result.mutable_text()->set_word_perplexity(perplexity * 10);
  if (kl) result.mutable_text()->mutable_kl()->set_mean(0.01299);
  return result;
}

QuantizeOutcome Outcome() {
  QuantizeOutcome outcome;
  outcome.directory = "/out";
  outcome.names = {{"datasets/d-1", "held-out.txt"}, {"datasets/d-2", "choices.jsonl"}};
  outcome.seconds = 12;
  v1::Job& job = outcome.job;
  job.mutable_spec()->mutable_quantize()->mutable_budget()->set_file_bytes(6'000'000);
  v1::PlanSummary* plan = job.mutable_plan();
  plan->set_source_bytes(20'000'000);
  plan->set_budget_bytes(6'000'000);
  plan->set_plan_bytes(5'970'000);
  plan->set_weight_file_bytes(5'970'000);
  plan->set_bits_per_weight(3.244);
  plan->set_explanation("Lowest measured KL of 9 plans.");
  for (const char* format : {"int4-g128", "int2-g128", "int2-g128"}) {
    plan->add_units()->set_format(format);
  }
  job.mutable_progress()->set_tasks_total(33);
  job.mutable_progress()->set_tasks_cached(11);
  *job.add_evaluations() = Choice("artifact", 0.905);
  *job.add_evaluations() = Text("artifact", 52.1119, true);
  *job.add_evaluations() = Text("source", 51.3689, false);
  *job.add_evaluations() = Choice("source", 0.902);
  return outcome;
}

TEST(ResultsTest, TheTableSaysSizesWidthsAndWhereThingsLie) {
  const std::string text = QuantizeTable(Outcome());
  EXPECT_THAT(text, HasSubstr("source weights    20.0 MB (20,000,000 bytes)\n"));
  EXPECT_THAT(text, HasSubstr("29.9% of the source, 99.5% of the budget"));
  EXPECT_THAT(text, HasSubstr("formats           int2-g128: 2 units, int4-g128: 1 unit\n"));
  EXPECT_THAT(text, HasSubstr("chosen            Lowest measured KL of 9 plans.\n"));
  EXPECT_THAT(text, HasSubstr("11 of 33 tasks from the cache"));
  EXPECT_THAT(text, HasSubstr("report    /out/lwq-report.json\n"));
}

TEST(ResultsTest, SourceStandsBeforeArtifactAndTextBeforeChoices) {
  const QuantizeOutcome outcome = Outcome();
  EXPECT_EQ(EvaluationTable(outcome.job, outcome.names),
            "measure                                          source  artifact\n"
            "perplexity per token, held-out.txt              51.3689   52.1119\n"
            "perplexity per word, held-out.txt              513.6890  521.1190\n"
            "KL to the source: mean, held-out.txt                  -   0.01299\n"
            "  median                                              -   0.00000\n"
            "  99th percentile                                     -    0.0000\n"
            "  same first choice                                   -      0.0%\n"
            "accuracy, choices.jsonl (400 items)               90.2%     90.5%\n"
            "accuracy by length, choices.jsonl (400 items)     90.2%     90.5%\n");
  EXPECT_EQ(EvaluationTable(v1::Job(), {}), "");
}

TEST(ResultsTest, JsonHoldsTheSameAndTheWholeJob) {
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string json, QuantizeJson(Outcome()));
  google::protobuf::Struct object;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(json, &object).ok());
  EXPECT_EQ(object.fields().at("weight_file_bytes").number_value(), 5'970'000);
  EXPECT_EQ(object.fields().at("formats").struct_value().fields().at("int2-g128").number_value(),
            2);
  EXPECT_EQ(
      object.fields().at("datasets").struct_value().fields().at("datasets/d-1").string_value(),
      "held-out.txt");
  EXPECT_EQ(object.fields()
                .at("job")
                .struct_value()
                .fields()
                .at("evaluations")
                .list_value()
                .values_size(),
            4);
}

}  // namespace
}  // namespace lwq::client

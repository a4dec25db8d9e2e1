// The text is held against the Python client's in tests/deploy/python_client_test.py.
#include "client/model_card.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lwq::client {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

v1::Job MeasuredJob() {
  v1::Job job;
  job.set_name("jobs/j-1");
  v1::QuantizeSpec& spec = *job.mutable_spec()->mutable_quantize();
  spec.set_model("models/m");
  spec.mutable_budget()->set_bits_per_weight(3.25);
  spec.set_method("gptq");
  v1::PlanSummary& plan = *job.mutable_plan();
  plan.set_bits_per_weight(3.2471);
  plan.set_weight_file_bytes(6123456);
  plan.set_source_bytes(20000000);
  plan.set_explanation("two\nlines");
  for (const char* format : {"int4-g128", "int3-g128", "int3-g128", ""}) {
    plan.add_units()->set_format(format);
  }
  for (const char* subject : {"artifact", "source"}) {
    v1::EvaluationResult& result = *job.add_evaluations();
    result.set_subject(subject);
    result.set_dataset("datasets/d");
    result.mutable_text()->set_token_perplexity(20.5);
    result.mutable_text()->set_word_perplexity(100);
  }
  job.mutable_evaluations(0)->mutable_text()->mutable_kl()->set_mean(0.0125);
  return job;
}

TEST(ModelCardTest, SaysWhatItIsHowGoodItIsAndHowItWasMade) {
  v1::Artifact artifact;
  v1::NamedBlob& file = *artifact.add_files();
  file.set_name("model.safetensors");
  file.mutable_blob()->set_size_bytes(6123456);
  file.mutable_blob()->set_sha256("abc");
  const std::string card =
      ModelCard(MeasuredJob(), artifact, {{"models/m", "my-llama"}, {"datasets/d", "held-out"}});
  for (const char* part : {"---\ntags: [lwq, quantized, compressed-tensors]\n---\n\n# my-llama at "
                           "3.247 bits per weight\n",
                           "within a budget of 3.25 bits per weight: 6,123,456 bytes of weights, "
                           "30.6% of the source's.\n",
                           "| dropped | 1 |\n| int3-g128 | 2 |\n| int4-g128 | 1 |\n\nHow the "
                           "formats were chosen: two lines\n",
                           "\n| measure | source | artifact |\n| --- | --- | --- |\n"
                           "| perplexity per token, held-out | 20.5000 | 20.5000 |\n",
                           "| KL to the source, held-out: mean | - | 0.01250 |\n",
                           "How it was made: method gptq; job `jobs/j-1`.",
                           "| model.safetensors | 6,123,456 | `abc` |\n"}) {
    EXPECT_THAT(card, HasSubstr(part));
  }
}

TEST(ModelCardTest, WhatWasNotMeasuredHasNoTable) {
  v1::Job job = MeasuredJob();
  job.clear_evaluations();
  EXPECT_THAT(ModelCard(job, {}, {}), Not(HasSubstr("measure")));
}

}  // namespace
}  // namespace lwq::client

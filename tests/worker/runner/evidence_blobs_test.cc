// What is collected comes back from the blobs and numbers of a finished task as it was.
#include "worker/runner/evidence_blobs.h"

#include <memory>
#include <string>
#include <utility>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/runner/local_blobs.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;

class EvidenceBlobsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    LWQ_ASSERT_OK_AND_ASSIGN(device_, MakeDevice({.device = "cpu", .num_threads = 1}));
    LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory scratch, TempDirectory::Create());
    scratch_ = std::make_unique<TempDirectory>(std::move(scratch));
    blobs_ = std::make_unique<testing::LocalBlobs>(scratch_->path());
    context_.device = device_.get();
    context_.blobs = blobs_.get();
    context_.lease = &lease_;
  }

  std::unique_ptr<LayerEvidence> Reopen(v1::TaskOutput output, Place place) {
    lease_.clear_inputs();
    v1::TaskInput& input = *lease_.add_inputs();
    input.set_role("calibrate");
    *input.mutable_output() = std::move(output);
    return OpenEvidence(&context_, place);
  }

  std::unique_ptr<Device> device_;
  std::unique_ptr<TempDirectory> scratch_;
  std::unique_ptr<testing::LocalBlobs> blobs_;
  v1::Lease lease_;
  TaskContext context_;
  const InputSpec input_ = {"mlp", 3};
};

TEST_F(EvidenceBlobsTest, ValuesTablesAndTrianglesComeBack) {
  v1::TaskOutput output;
  output.mutable_calibrate()->set_num_tokens(100);
  for (int layer : {4, 5}) {
    BlobEvidenceSink sink(&context_, Place::Layer(layer), &output);
    ASSERT_OK(sink.AddValue("layer-cosine", 0.5 + layer));
    ASSERT_OK(sink.AddValue("layer-angle", 0.25));
  }
  EXPECT_EQ(output.calibrate().layers_size(), 2);
  Matrix table(2, 3), square(3, 3);
  for (int64_t i = 0; i < 6; ++i) table.data()[i] = static_cast<float>(i) + 0.5f;
  for (int64_t i = 0; i < 9; ++i) square.data()[i] = static_cast<float>(i) + 1;
  LWQ_ASSERT_OK_AND_ASSIGN(auto on_device, device_->NewMatrix(3, 3));
  ASSERT_OK(device_->Upload(square.view(), on_device->view()));
  BlobEvidenceSink sink(&context_, Place::Layer(5), &output);
  ASSERT_OK(sink.AddTable("channel-statistics", input_, table.view()));
  ASSERT_OK(sink.AddTriangle("second-moments", input_, on_device->view()));

  const auto evidence = Reopen(output, Place::Layer(5));
  EXPECT_EQ(evidence->num_tokens(), 100);
  EXPECT_EQ(evidence->Value("layer-cosine").value(), 5.5);
  EXPECT_EQ(evidence->Value("layer-angle").value(), 0.25);
  LWQ_ASSERT_OK_AND_ASSIGN(const Matrix table_back,
                           evidence->Table("channel-statistics", input_, 2));
  ASSERT_EQ(table_back.rows(), 2);
  for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(table_back.data()[i], table.data()[i]);
  LWQ_ASSERT_OK_AND_ASSIGN(const auto triangle, evidence->Triangle("second-moments", input_));
  Matrix back(3, 3);
  ASSERT_OK(device_->Download(triangle->view(), back.view()));
  for (int64_t r = 0; r < 3; ++r) {
    for (int64_t c = 0; c < 3; ++c) {
      EXPECT_EQ(back.Row(r)[c], c <= r ? square.Row(r)[c] : 0.0f) << r << ", " << c;
    }
  }
}

TEST_F(EvidenceBlobsTest, WhatWasNotCollectedOrIsCutShortIsRefused) {
  v1::TaskOutput output;
  BlobEvidenceSink sink(&context_, Place::Layer(5), &output);
  ASSERT_OK(sink.AddValue("layer-cosine", 1));
  Matrix table(1, 3);
  ASSERT_OK(sink.AddTable("second-moments", input_, table.view()));
  const auto evidence = Reopen(output, Place::Layer(5));
  EXPECT_THAT(evidence->Value("layer-angle"), FailsWith("EVIDENCE_MISSING", HasSubstr("layer 5")));
  EXPECT_THAT(Reopen(output, Place::Layer(4))->Value("layer-cosine"),
              FailsWith("EVIDENCE_MISSING", HasSubstr("layer 4")));
  // A triangle of three has six numbers, a table whole rows.
  EXPECT_THAT(Reopen(output, Place::Layer(5))->Triangle("second-moments", input_),
              FailsWith("BLOB_CORRUPT", HasSubstr("second-moments.5.mlp")));
  EXPECT_THAT(evidence->Table("second-moments", input_, 2),
              FailsWith("BLOB_CORRUPT", HasSubstr("12 bytes")));
}

TEST_F(EvidenceBlobsTest, NamesAreThoseOfTheRecords) {
  EXPECT_EQ(EvidenceBlobName("second-moments", Place::Layer(3), input_), "second-moments.3.mlp");
  EXPECT_EQ(EvidenceBlobName("second-moments", Place::Head(), {"head", 8}), "second-moments.head");
}

}  // namespace
}  // namespace lwq

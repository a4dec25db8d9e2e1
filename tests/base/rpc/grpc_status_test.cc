#include "base/rpc/grpc_status.h"

#include "base/failure.h"
#include "base/failure_details.h"
#include "base/reasons.h"
#include "base/rpc/google_rpc.pb.h"
#include "gtest/gtest.h"

namespace lwq {
namespace {

google::rpc::Status DetailsOf(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  return details;
}

TEST(GrpcStatusTest, ReasonFieldsAndFactsComeBack) {
  absl::Status status = InvalidFailure("FIELD_INVALID", "a: is missing");
  AddFieldViolation("a", "is missing", &status);
  AddFact("smallest_budget", "2.4bpw", &status);
  EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(status)), status);
}

// What every gRPC library's decoder reads.
TEST(GrpcStatusTest, DetailsAreGoogleRpcStatus) {
  absl::Status status = InvalidFailure("FIELD_INVALID", "a: is missing");
  AddFieldViolation("a", "is missing", &status);
  const grpc::Status sent = ToGrpcStatus(status);
  const google::rpc::Status details = DetailsOf(sent);
  EXPECT_EQ(details.code(), 3);
  EXPECT_EQ(details.message(), sent.error_message());
  ASSERT_EQ(details.details_size(), 2);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.ErrorInfo");
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(details.details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), "FIELD_INVALID");
  EXPECT_EQ(info.domain(), "lwq.dev");
  google::rpc::BadRequest bad;
  ASSERT_TRUE(details.details(1).UnpackTo(&bad));
  EXPECT_EQ(bad.field_violations(0).field(), "a");
}

TEST(GrpcStatusTest, WhatAQuotaLacksArrivesAsAQuotaFailure) {
  absl::Status status = Failure(reasons::kQuotaExceeded, "tenant acme has 8 jobs waiting");
  AddQuotaViolation("tenants/acme", "has 8 jobs waiting", &status);
  const grpc::Status sent = ToGrpcStatus(status);
  const google::rpc::Status details = DetailsOf(sent);
  google::rpc::QuotaFailure quota;
  ASSERT_TRUE(details.details(1).UnpackTo(&quota));
  EXPECT_EQ(quota.violations(0).subject(), "tenants/acme");
  EXPECT_EQ(quota.violations(0).description(), "has 8 jobs waiting");
  const std::vector<QuotaViolation> received = QuotaViolationsOf(FromGrpcStatus(sent));
  ASSERT_EQ(received.size(), 1);
  EXPECT_EQ(received[0].subject, "tenants/acme");
}

TEST(GrpcStatusTest, WhatPassesByItselfSaysWhenToTryAgain) {
  const google::rpc::Status again =
      DetailsOf(ToGrpcStatus(Failure(reasons::kBlobIo, "the disk does not answer")));
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(again.details(again.details_size() - 1).UnpackTo(&retry));
  EXPECT_GT(retry.retry_delay().seconds(), 0);
  EXPECT_EQ(DetailsOf(ToGrpcStatus(Failure(reasons::kBudgetInvalid, "no"))).details_size(), 1);
}

// gRPC refuses trailers above 8 KiB, and protobuf text that is not UTF-8: either would lose the
// reason.
TEST(GrpcStatusTest, LongAndDamagedMessagesKeepTheReason) {
  for (const std::string& message :
       {std::string(20'000, 'x'), std::string(20'000, '\xFF'), std::string(5000, '%')}) {
    absl::Status status = InvalidFailure("FIELD_INVALID", message);
    AddFact("long", message, &status);
    AddFieldViolation("a", message, &status);
    const grpc::Status sent = ToGrpcStatus(status);
    size_t escaped = 0;
    for (unsigned char c : sent.error_message())
      escaped += c < 0x20 || c > 0x7e || c == '%' ? 3 : 1;
    EXPECT_LT(escaped + sent.error_details().size() * 4 / 3, 7500u);
    EXPECT_EQ(ReasonOf(FromGrpcStatus(sent)), "FIELD_INVALID");
    EXPECT_GT(sent.error_message().size(), 500u);
  }
}

TEST(GrpcStatusTest, ForeignDetailsAreNoReason) {
  const grpc::Status foreign(grpc::StatusCode::NOT_FOUND, "gone", "no proto \xFF");
  EXPECT_EQ(FromGrpcStatus(foreign), absl::NotFoundError("gone"));
}

TEST(GrpcStatusTest, ACancelledCallWasTheOtherSide) {
  EXPECT_TRUE(absl::IsUnavailable(FromGrpcStatus(grpc::Status::CANCELLED)));
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

}  // namespace
}  // namespace lwq

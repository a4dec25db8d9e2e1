// EXPECT_OK, ASSERT_OK, LWQ_ASSERT_OK_AND_ASSIGN and StatusIs for absl::Status and StatusOr.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lwq::testing {

inline const absl::Status& GetStatus(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& GetStatus(const absl::StatusOr<T>& result) {
  return result.status();
}

MATCHER(IsOk, "is OK") {
  if (GetStatus(arg).ok()) return true;
  *result_listener << GetStatus(arg).ToString();
  return false;
}

// Code equal and message matching a gmock matcher.
MATCHER_P2(StatusIs, code, message, "") {
  const absl::Status& status = GetStatus(arg);
  *result_listener << status.ToString();
  return status.code() == code &&
         ::testing::ExplainMatchResult(message, std::string(status.message()), result_listener);
}

// Reason (base/failure.h) equal and message matching a gmock matcher.
MATCHER_P2(FailsWith, reason, message, "") {
  const absl::Status& status = GetStatus(arg);
  *result_listener << status.ToString() << " reason " << lwq::ReasonOf(status);
  return !status.ok() && lwq::ReasonOf(status) == reason &&
         ::testing::ExplainMatchResult(message, std::string(status.message()), result_listener);
}

}  // namespace lwq::testing

#define EXPECT_OK(expr) EXPECT_THAT(expr, ::lwq::testing::IsOk())
#define ASSERT_OK(expr) ASSERT_THAT(expr, ::lwq::testing::IsOk())
#define LWQ_ASSERT_OK_AND_ASSIGN(lhs, expr) \
  LWQ_ASSERT_OK_AND_ASSIGN_IMPL(LWQ_CONCAT(lwq_test_statusor_, __LINE__), lhs, expr)
#define LWQ_ASSERT_OK_AND_ASSIGN_IMPL(statusor, lhs, expr)  \
  auto statusor = (expr);                                   \
  ASSERT_TRUE(statusor.ok()) << statusor.status();          \
  lhs = std::move(statusor).value()

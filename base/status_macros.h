// Early-return macros for absl::Status and absl::StatusOr. Debian 12's Abseil ships none.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace lwq {

// Puts "<context>: " before the message of a failed status, keeping its code and payloads.
template <typename... Parts>
absl::Status Annotate(const absl::Status& status, const Parts&... context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(context..., ": ", status.message()));
  status.ForEachPayload([&](absl::string_view type_url, const absl::Cord& payload) {
    annotated.SetPayload(type_url, payload);
  });
  return annotated;
}

}  // namespace lwq

#define LWQ_CONCAT_INNER(a, b) a##b
#define LWQ_CONCAT(a, b) LWQ_CONCAT_INNER(a, b)

#define LWQ_RETURN_IF_ERROR(expr)                 \
  do {                                            \
    ::absl::Status lwq_status = (expr);           \
    if (!lwq_status.ok()) return lwq_status;      \
  } while (false)

// LWQ_ASSIGN_OR_RETURN(auto x, F()); the left side may declare or assign.
#define LWQ_ASSIGN_OR_RETURN(lhs, expr) \
  LWQ_ASSIGN_OR_RETURN_IMPL(LWQ_CONCAT(lwq_statusor_, __LINE__), lhs, expr)
#define LWQ_ASSIGN_OR_RETURN_IMPL(statusor, lhs, expr) \
  auto statusor = (expr);                              \
  if (!statusor.ok()) return std::move(statusor).status(); \
  lhs = std::move(statusor).value()

// As LWQ_ASSIGN_OR_RETURN, with "<context>: " put before the message.
#define LWQ_ASSIGN_OR_ANNOTATE(lhs, expr, ...) \
  LWQ_ASSIGN_OR_ANNOTATE_IMPL(LWQ_CONCAT(lwq_statusor_, __LINE__), lhs, expr, __VA_ARGS__)
#define LWQ_ASSIGN_OR_ANNOTATE_IMPL(statusor, lhs, expr, ...)                       \
  auto statusor = (expr);                                                           \
  if (!statusor.ok()) return ::lwq::Annotate(std::move(statusor).status(), __VA_ARGS__); \
  lhs = std::move(statusor).value()

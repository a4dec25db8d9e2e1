// A store whose calls fail as a FaultPlan says.
#pragma once

#include <string>
#include <vector>

#include "base/failure.h"
#include "server/store/store.h"
#include "tests/testing/fault_plan.h"

namespace lwq::testing {

// `inner` and `plan` outlive it. Calls fail with `failure`. A commit that fails after it was done
// says STORE_UNCERTAIN, because no store may say anything else then.
class FailingStore : public Store {
 public:
  FailingStore(Store* inner, FaultPlan* plan,
               absl::Status failure = Failure(absl::StatusCode::kUnavailable, "STORE_UNAVAILABLE",
                                              "a fault that the test asked for"))
      : inner_(inner), plan_(plan), failure_(std::move(failure)) {}

  absl::Status Commit(const std::vector<Write>& writes) override {
    const Fault fault = plan_->Next();
    if (fault == Fault::kBefore) return failure_;
    absl::Status status = inner_->Commit(writes);
    if (fault == Fault::kNone || !status.ok()) return status;
    return Failure(absl::StatusCode::kUnknown, "STORE_UNCERTAIN",
                   "a fault that the test asked for, after the commit");
  }
  absl::StatusOr<std::vector<Record>> GetMany(Table table,
                                              const std::vector<std::string>& keys) override {
    if (plan_->Next() != Fault::kNone) return failure_;
    return inner_->GetMany(table, keys);
  }
  absl::StatusOr<std::vector<Record>> List(Table table, const ListQuery& query) override {
    if (plan_->Next() != Fault::kNone) return failure_;
    return inner_->List(table, query);
  }
  absl::string_view name() const override { return inner_->name(); }
  bool shared() const override { return inner_->shared(); }

 private:
  Store* const inner_;
  FaultPlan* const plan_;
  const absl::Status failure_;
};

}  // namespace lwq::testing

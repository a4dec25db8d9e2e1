#include "worker/engine/plan/allocator.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "worker/engine/plan/allocation_measure.h"

namespace lwq {
namespace {

constexpr const AllocatorDef* kAllocators[] = {
#define LWQ_ALLOCATOR(file) &AllocatorDefs::file,
#include "worker/engine/plan/allocators.def"
#undef LWQ_ALLOCATOR
};

}  // namespace

absl::Span<const AllocatorDef* const> Allocators() { return kAllocators; }

absl::StatusOr<const AllocatorDef*> FindAllocator(absl::string_view name) {
  for (const AllocatorDef* def : kAllocators) {
    if (def->name == name) return def;
  }
  return InvalidFailure(
      "ALLOCATOR_UNKNOWN",
      absl::StrCat("there is no allocator \"", name, "\"; the allocators are ",
                   absl::StrJoin(kAllocators, ", ", [](std::string* out, const AllocatorDef* def) {
                     absl::StrAppend(out, def->name);
                   })));
}

absl::StatusOr<Allocation> Allocate(absl::string_view allocator, const AllocationProblem& problem) {
  LWQ_ASSIGN_OR_RETURN(const AllocatorDef* def, FindAllocator(allocator));
  LWQ_RETURN_IF_ERROR(CheckProblem(problem));
  LWQ_RETURN_IF_ERROR(CheckCosted(*def, problem));
  LWQ_RETURN_IF_ERROR(CheckFeasible(problem));
  return def->allocate(problem);
}

}  // namespace lwq

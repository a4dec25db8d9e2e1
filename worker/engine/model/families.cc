#include "worker/engine/model/families.h"

namespace lwq {

#define LWQ_FAMILY(name) extern const ModelFamilyDef name##_family;
#include "worker/engine/model/families.def"
#undef LWQ_FAMILY

namespace {

#define LWQ_FAMILY(name) &name##_family,
constexpr const ModelFamilyDef* kFamilies[] = {
#include "worker/engine/model/families.def"
};
#undef LWQ_FAMILY

}  // namespace

absl::Span<const ModelFamilyDef* const> ModelFamilies() { return kFamilies; }

}  // namespace lwq

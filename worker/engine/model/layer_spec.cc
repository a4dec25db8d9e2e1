#include "worker/engine/model/layer_spec.h"

namespace lwq {
namespace {

template <typename T, typename Wanted>
std::optional<size_t> IndexOf(const std::vector<T>& entries, Wanted wanted) {
  for (size_t i = 0; i < entries.size(); ++i) {
    if (wanted(entries[i])) return i;
  }
  return std::nullopt;
}

}  // namespace

std::optional<size_t> LayerSpec::FindLinear(LinearRole role) const {
  return IndexOf(linears, [role](const LinearSpec& linear) {
    return linear.shape.role == role && !linear.expert.has_value();
  });
}

std::optional<size_t> LayerSpec::FindExpert(int expert, LinearRole role) const {
  return IndexOf(linears, [&](const LinearSpec& linear) {
    return linear.shape.role == role && linear.expert == expert;
  });
}

std::optional<size_t> LayerSpec::FindLinear(const std::string& module) const {
  return IndexOf(linears,
                 [&module](const LinearSpec& linear) { return linear.shape.module == module; });
}

std::optional<size_t> LayerSpec::FindNorm(NormRole role) const {
  return IndexOf(norms, [role](const NormSpec& norm) { return norm.role == role; });
}

}  // namespace lwq

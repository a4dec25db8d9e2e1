#include "worker/engine/plan/menu.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/plan/artifact_layout.h"

namespace lwq {
namespace {

// Tried in this order behind the group size asked for.
constexpr int64_t kGroupSizes[] = {128, 64, 32};

// A rung, and the formats that a unit may take for it, the first that it accepts.
struct Rung {
  std::string name;
  std::vector<const WeightFormat*> formats;
};

bool AcceptsAll(const WeightFormat& format, const AllocationUnit& unit) {
  return std::all_of(unit.linears.begin(), unit.linears.end(), [&](const LinearShape& linear) {
    return format.Accepts(linear.out_features, linear.in_features).ok();
  });
}

// The grid and the finer ones that stand in for it where its group size does not divide.
Rung GridRung(int bits, int64_t group_size, bool symmetric) {
  const GridFormat* first = GridFormat::Find(bits, group_size, symmetric);
  Rung rung{first->label(), {first}};
  for (int64_t smaller : kGroupSizes) {
    if (smaller < group_size) {
      rung.formats.push_back(GridFormat::Find(bits, smaller, symmetric));
    }
  }
  if (group_size != 0) rung.formats.push_back(GridFormat::Find(bits, 0, symmetric));
  return rung;
}

// The rungs of a job that names none.
std::vector<std::string> NamesOf(const ProfileDef& profile, bool symmetric) {
  std::vector<std::string> names;
  for (int bits : symmetric ? profile.grid_bits : profile.asymmetric_bits)
    names.push_back(absl::StrCat("int", bits));
  for (const std::vector<std::string>& rung : profile.rungs) names.push_back(rung.front());
  names.push_back(DenseFormat()->id());
  return names;
}

std::string GroupSizeName(int64_t group_size) {
  return group_size == 0 ? "row (0)" : absl::StrCat(group_size);
}

absl::Status CheckGroupSize(const ProfileDef& profile, int64_t group_size) {
  const auto& groups = profile.group_sizes;
  if (std::find(groups.begin(), groups.end(), group_size) != groups.end()) return absl::OkStatus();
  return Failure(
      reasons::kGroupSize,
      absl::StrCat("profile ", profile.name, " has no group size ", group_size, "; it accepts ",
                   absl::StrJoin(groups, ", ", [](std::string* out, int64_t group) {
                     absl::StrAppend(out, GroupSizeName(group));
                   })));
}

absl::Status NotOfProfile(const ProfileDef& profile, absl::string_view asked) {
  return Failure(reasons::kFormatUnsupported,
                 absl::StrCat("profile ", profile.name, " has no format \"", asked,
                              "\"; it accepts ", absl::StrJoin(NamesOf(profile, true), ", ")));
}

absl::Status CheckBits(const ProfileDef& profile, absl::string_view asked, int bits,
                       bool symmetric) {
  const auto& widths = symmetric ? profile.grid_bits : profile.asymmetric_bits;
  if (std::find(widths.begin(), widths.end(), bits) != widths.end()) return absl::OkStatus();
  if (profile.grid_bits.empty()) return NotOfProfile(profile, asked);
  if (widths.empty()) {
    return Failure(reasons::kFormatUnsupported,
                   absl::StrCat("profile ", profile.name, " has no formats with zero points, \"",
                                asked, "\" among them; leave out --asymmetric"));
  }
  return Failure(reasons::kFormatUnsupported,
                 absl::StrCat("profile ", profile.name, " has no ", symmetric ? "" : "asymmetric ",
                              "format \"", asked, "\"; it accepts int",
                              absl::StrJoin(widths, ", int"), " and dense"));
}

// A rung of a format that is no grid, or that rounds inputs, with what stands in for it. All
// formats of a kind of which the profile has some may be asked for.
absl::StatusOr<Rung> OtherRung(const ProfileDef& profile, const WeightFormat* format) {
  const auto same_kind = [format](const std::vector<std::string>& ids) {
    const auto of_profile = FindWeightFormat(ids.front());
    return of_profile.ok() && ((*of_profile)->gguf() != nullptr) == (format->gguf() != nullptr);
  };
  if (!std::any_of(profile.rungs.begin(), profile.rungs.end(), same_kind)) {
    return NotOfProfile(profile, format->id());
  }
  Rung rung{format->label(), {format}};
  for (const std::vector<std::string>& ids : profile.rungs) {
    if (ids.front() != format->id()) continue;
    for (size_t i = 1; i < ids.size(); ++i) {
      LWQ_ASSIGN_OR_RETURN(const WeightFormat* stand_in, FindWeightFormat(ids[i]));
      rung.formats.push_back(stand_in);
    }
  }
  return rung;
}

// What one name of a request stands for.
absl::Status AddRungs(const ProfileDef& profile, const MenuRequest& request,
                      const std::string& name, std::vector<Rung>& rungs) {
  if (name == DenseFormat()->id()) {
    rungs.push_back({DenseFormat()->label(), {DenseFormat()}});
    return absl::OkStatus();
  }
  const bool by_group = !absl::StrContains(name, '-');  // "int4": the group sizes come beside it
  const absl::StatusOr<const WeightFormat*> format =
      FindWeightFormat(by_group ? absl::StrCat(name, "-row") : name);
  if (!format.ok()) return FindWeightFormat(name).status();
  const GridFormat* grid = (*format)->grid();
  if (grid == nullptr || grid->activation_rule() != ActivationRule::kNone) {
    LWQ_ASSIGN_OR_RETURN(Rung rung, OtherRung(profile, *format));
    rungs.push_back(std::move(rung));
    return absl::OkStatus();
  }
  const bool symmetric = by_group ? request.symmetric : grid->symmetric();
  LWQ_RETURN_IF_ERROR(CheckBits(profile, name, grid->bits(), symmetric));
  const std::vector<int64_t> groups =
      by_group ? request.group_sizes : std::vector<int64_t>{grid->group_size()};
  for (int64_t group : groups) {
    LWQ_RETURN_IF_ERROR(CheckGroupSize(profile, group));
    rungs.push_back(GridRung(grid->bits(), group, symmetric));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Rung>> RungsOf(const ProfileDef& profile, const MenuRequest& request) {
  const std::vector<std::string> names =
      request.formats.empty() ? NamesOf(profile, request.symmetric) : request.formats;
  std::vector<Rung> rungs;
  for (const std::string& name : names) {
    LWQ_RETURN_IF_ERROR(AddRungs(profile, request, name, rungs));
  }
  return rungs;
}

// Engines do not round what the head reads.
bool Fits(const WeightFormat& format, const AllocationUnit& unit) {
  return (unit.place.in_layer() || format.activation_rule() == ActivationRule::kNone) &&
         AcceptsAll(format, unit);
}

// The unit's format for each rung; dense where it accepts none of the rung's.
std::vector<const WeightFormat*> Resolve(const AllocationUnit& unit,
                                         const std::vector<Rung>& rungs) {
  std::vector<const WeightFormat*> formats;
  for (const Rung& rung : rungs) {
    const auto accepted =
        std::find_if(rung.formats.begin(), rung.formats.end(),
                     [&](const WeightFormat* format) { return Fits(*format, unit); });
    formats.push_back(accepted == rung.formats.end() ? DenseFormat() : *accepted);
  }
  return formats;
}

// What the first rung that is not dense lacks for a unit that no rung takes.
std::string WhyRefused(const AllocationUnit& unit, const std::vector<Rung>& rungs) {
  for (const Rung& rung : rungs) {
    if (rung.formats.back()->dense()) continue;
    if (!unit.place.in_layer() && rung.formats.back()->activation_rule() != ActivationRule::kNone) {
      return "engines do not round what it reads";
    }
    for (const LinearShape& linear : unit.linears) {
      const absl::Status status =
          rung.formats.back()->Accepts(linear.out_features, linear.in_features);
      if (!status.ok()) return absl::StrCat(linear.module, ": ", status.message());
    }
  }
  return "";
}

UnitMenu MenuOf(const ModelInventory& model, const AllocationUnit& unit,
                const std::vector<const WeightFormat*>& at_rung) {
  UnitMenu menu;
  menu.formats = at_rung;
  const auto bytes = [&](const WeightFormat* format) {
    return UnitPayloadBytes(model, unit, format);
  };
  std::stable_sort(
      menu.formats.begin(), menu.formats.end(),
      [&](const WeightFormat* a, const WeightFormat* b) { return bytes(a) < bytes(b); });
  std::vector<const WeightFormat*> distinct;
  for (const WeightFormat* format : menu.formats) {
    if (std::find(distinct.begin(), distinct.end(), format) == distinct.end()) {
      distinct.push_back(format);
    }
  }
  menu.formats = std::move(distinct);
  for (const WeightFormat* format : at_rung) menu.at_rung.push_back(menu.Find(format));
  return menu;
}

// Indices of the rungs, ascending in the bytes of the whole model at that rung; equal ones once.
std::vector<size_t> RungOrder(const ModelInventory& model,
                              const std::vector<std::vector<const WeightFormat*>>& resolved,
                              size_t num_rungs) {
  std::vector<int64_t> bytes(num_rungs, 0);
  for (size_t u = 0; u < resolved.size(); ++u) {
    for (size_t r = 0; r < num_rungs; ++r) {
      bytes[r] += UnitPayloadBytes(model, model.units[u], resolved[u][r]);
    }
  }
  std::vector<size_t> order;
  for (size_t r = 0; r < num_rungs; ++r) {
    const bool seen = std::any_of(order.begin(), order.end(), [&](size_t before) {
      return std::all_of(resolved.begin(), resolved.end(),
                         [&](const auto& formats) { return formats[before] == formats[r]; });
    });
    if (!seen) order.push_back(r);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return bytes[a] < bytes[b]; });
  return order;
}

bool IsHead(const AllocationUnit& unit) { return unit.place == Place::Head(); }

}  // namespace

int UnitMenu::Find(const WeightFormat* format) const {
  const auto at = std::find(formats.begin(), formats.end(), format);
  return at == formats.end() ? -1 : static_cast<int>(at - formats.begin());
}

absl::StatusOr<Menu> BuildMenu(const ModelInventory& model, const ProfileDef& profile,
                               const MenuRequest& request) {
  LWQ_ASSIGN_OR_RETURN(const std::vector<Rung> rungs, RungsOf(profile, request));
  const std::vector<Rung> dense = {{DenseFormat()->label(), {DenseFormat()}}};
  std::vector<std::vector<const WeightFormat*>> resolved;
  Menu menu;
  for (const AllocationUnit& unit : model.units) {
    if (IsHead(unit) && !request.quantize_head && !profile.quantizes_head) {
      resolved.emplace_back(rungs.size(), DenseFormat());
      continue;
    }
    resolved.push_back(Resolve(unit, rungs));
    const bool asked = std::any_of(rungs.begin(), rungs.end(),
                                   [](const Rung& rung) { return !rung.formats.front()->dense(); });
    const bool none = std::all_of(resolved.back().begin(), resolved.back().end(),
                                  [](const WeightFormat* format) { return format->dense(); });
    if (asked && none) {
      menu.notes.push_back(
          absl::StrCat(unit.name, " stays as in the source: ", WhyRefused(unit, rungs)));
    }
  }
  const std::vector<size_t> order = RungOrder(model, resolved, rungs.size());
  for (size_t r : order) menu.rungs.push_back(rungs[r].name);
  for (size_t u = 0; u < model.units.size(); ++u) {
    std::vector<const WeightFormat*> at_rung;
    for (size_t r : order) at_rung.push_back(resolved[u][r]);
    menu.units.push_back(MenuOf(model, model.units[u], at_rung));
  }
  return menu;
}

}  // namespace lwq

#include "worker/engine/model/rope_config.h"

#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr int64_t kMaxPositions = int64_t{1} << 31;
constexpr double kMaxTheta = 1e12;
constexpr double kSmallest = 1e-3, kLargest = 1e6;  // of factors

class RopeReader {
 public:
  RopeReader(const ConfigReader& parameters, const RopeDefaults& defaults)
      : parameters_(parameters), defaults_(defaults) {}

  absl::StatusOr<RopeSpec> Read() {
    LWQ_RETURN_IF_ERROR(ReadType());
    LWQ_ASSIGN_OR_RETURN(rope_.theta,
                         parameters_.Number("rope_theta", 1, kMaxTheta, defaults_.theta));
    LWQ_RETURN_IF_ERROR(ReadRotated());
    switch (rope_.type) {
      case RopeType::kDefault:
        break;
      case RopeType::kLinear:
        LWQ_RETURN_IF_ERROR(ReadFactor());
        break;
      case RopeType::kDynamic:
        LWQ_RETURN_IF_ERROR(ReadDynamic());
        break;
      case RopeType::kLlama3:
        LWQ_RETURN_IF_ERROR(ReadLlama3());
        break;
      case RopeType::kYarn:
        LWQ_RETURN_IF_ERROR(ReadYarn());
        break;
      case RopeType::kLongRope:
        LWQ_RETURN_IF_ERROR(ReadLongRope());
        break;
    }
    return std::move(rope_);
  }

 private:
  int rotated() const { return rope_.rotated == 0 ? defaults_.head_dim : rope_.rotated; }

  absl::Status ReadType() {
    const bool old_spelling = parameters_.Has("type");
    const char* field = parameters_.Has("rope_type") || !old_spelling ? "rope_type" : "type";
    LWQ_ASSIGN_OR_RETURN(const std::string name, parameters_.String(field, "default"));
    if (name == "default") return absl::OkStatus();
    if (defaults_.phi3) {
      rope_.type = RopeType::kLongRope;
      if (name == "longrope" || name == "su" || name == "yarn") return absl::OkStatus();
      return parameters_.Refuse(field, "default, longrope");
    }
    static constexpr std::pair<absl::string_view, RopeType> kTypes[] = {
        {"linear", RopeType::kLinear},
        {"dynamic", RopeType::kDynamic},
        {"llama3", RopeType::kLlama3},
        {"yarn", RopeType::kYarn},
        {"longrope", RopeType::kLongRope}};
    for (const auto& [known, type] : kTypes) {
      if (name != known) continue;
      rope_.type = type;
      return absl::OkStatus();
    }
    return parameters_.Refuse(field, "default, linear, dynamic, llama3, yarn, longrope");
  }

  absl::Status ReadRotated() {
    constexpr char kField[] = "partial_rotary_factor";
    LWQ_ASSIGN_OR_RETURN(const double part,
                         parameters_.Number(kField, 0, 1, defaults_.rotated_part));
    if (part == 1) return absl::OkStatus();
    const int rotated = static_cast<int>(part * defaults_.head_dim);
    if (!defaults_.phi3) return parameters_.Refuse(kField, "1");
    if (rotated < 2 || rotated % 2 != 0) {
      return parameters_.Refuse(
          kField, absl::StrCat("an even part of a head of ", defaults_.head_dim, " values"));
    }
    rope_.rotated = rotated;
    return absl::OkStatus();
  }

  absl::Status ReadFactor(std::optional<double> fallback = std::nullopt) {
    LWQ_ASSIGN_OR_RETURN(rope_.factor, parameters_.Number("factor", kSmallest, kLargest, fallback));
    return absl::OkStatus();
  }

  // In the object, or at the top level; or in both, but then the same.
  absl::Status ReadOriginalPositions(int64_t min) {
    constexpr char kField[] = "original_max_position_embeddings";
    const std::optional<int64_t>& outside = defaults_.original_max_positions;
    LWQ_ASSIGN_OR_RETURN(
        rope_.original_max_positions,
        parameters_.Int(kField, min, kMaxPositions, outside.value_or(defaults_.max_positions)));
    if (outside.has_value() && rope_.original_max_positions != *outside) {
      return parameters_.Refuse(kField, absl::StrCat(*outside, ", as outside"));
    }
    if (rope_.original_max_positions >= min) return absl::OkStatus();
    return parameters_.Refuse(kField, absl::StrCat("at least ", min));
  }

  double Stretch() const {
    return static_cast<double>(defaults_.max_positions) /
           static_cast<double>(rope_.original_max_positions);
  }

  absl::Status ReadDynamic() {
    LWQ_RETURN_IF_ERROR(ReadFactor());
    rope_.original_max_positions = defaults_.max_positions;
    if (rotated() > 2) return absl::OkStatus();
    return parameters_.Refuse("rope_type", "another type where a head has two values");
  }

  absl::Status ReadLlama3() {
    LWQ_RETURN_IF_ERROR(ReadFactor());
    LWQ_ASSIGN_OR_RETURN(rope_.low_freq_factor,
                         parameters_.Number("low_freq_factor", kSmallest, kLargest));
    LWQ_ASSIGN_OR_RETURN(rope_.high_freq_factor,
                         parameters_.Number("high_freq_factor", kSmallest, kLargest));
    if (rope_.high_freq_factor <= rope_.low_freq_factor) {
      return parameters_.Refuse("high_freq_factor",
                                absl::StrCat("more than low_freq_factor ", rope_.low_freq_factor));
    }
    return ReadOriginalPositions(1);
  }

  absl::Status ReadYarn() {
    if (rope_.theta <= 1) return parameters_.Refuse("rope_theta", "more than 1 for yarn");
    LWQ_RETURN_IF_ERROR(ReadOriginalPositions(1));
    LWQ_RETURN_IF_ERROR(ReadFactor(Stretch()));
    LWQ_ASSIGN_OR_RETURN(rope_.beta_fast, parameters_.Number("beta_fast", kSmallest, kLargest, 32));
    LWQ_ASSIGN_OR_RETURN(rope_.beta_slow, parameters_.Number("beta_slow", kSmallest, kLargest, 1));
    LWQ_ASSIGN_OR_RETURN(rope_.truncate, parameters_.Bool("truncate", true));
    LWQ_ASSIGN_OR_RETURN(const double mscale, parameters_.Number("mscale", 0, kLargest, 0));
    LWQ_ASSIGN_OR_RETURN(const double mscale_all_dim,
                         parameters_.Number("mscale_all_dim", 0, kLargest, 0));
    const auto factor_of = [this](double scale) {
      return rope_.factor <= 1 ? 1.0 : 0.1 * scale * std::log(rope_.factor) + 1;
    };
    const double by_default = mscale != 0 && mscale_all_dim != 0
                                  ? factor_of(mscale) / factor_of(mscale_all_dim)
                                  : factor_of(1);
    return ReadAttentionFactor(by_default);
  }

  absl::Status ReadLongRope() {
    LWQ_RETURN_IF_ERROR(ReadOriginalPositions(2));
    LWQ_RETURN_IF_ERROR(ReadFactor(Stretch()));
    const size_t pairs = static_cast<size_t>(rotated() / 2);
    LWQ_ASSIGN_OR_RETURN(rope_.short_factor,
                         parameters_.Numbers("short_factor", pairs, kSmallest, kLargest));
    LWQ_ASSIGN_OR_RETURN(rope_.long_factor,
                         parameters_.Numbers("long_factor", pairs, kSmallest, kLargest));
    const double original = static_cast<double>(rope_.original_max_positions);
    return ReadAttentionFactor(
        rope_.factor <= 1 ? 1 : std::sqrt(1 + std::log(rope_.factor) / std::log(original)));
  }

  absl::Status ReadAttentionFactor(double by_default) {
    LWQ_ASSIGN_OR_RETURN(rope_.attention_factor,
                         parameters_.Number("attention_factor", kSmallest, kLargest, by_default));
    return absl::OkStatus();
  }

  const ConfigReader& parameters_;
  const RopeDefaults& defaults_;
  RopeSpec rope_;
};

}  // namespace

absl::StatusOr<RopeSpec> ReadRopeParameters(const ConfigReader& parameters,
                                            const RopeDefaults& defaults) {
  return RopeReader(parameters, defaults).Read();
}

absl::StatusOr<RopeSpec> ReadRope(const ConfigReader& config, RopeDefaults defaults) {
  LWQ_ASSIGN_OR_RETURN(defaults.theta, config.Number("rope_theta", 1, kMaxTheta, defaults.theta));
  constexpr char kOriginal[] = "original_max_position_embeddings";
  if (config.Has(kOriginal)) {
    LWQ_ASSIGN_OR_RETURN(defaults.original_max_positions, config.Int(kOriginal, 1, kMaxPositions));
  }
  LWQ_ASSIGN_OR_RETURN(defaults.rotated_part,
                       config.Number("partial_rotary_factor", 0, 1, defaults.rotated_part));
  for (const char* field : {"rope_parameters", "rope_scaling"}) {
    if (!config.Has(field)) continue;
    LWQ_ASSIGN_OR_RETURN(const ConfigReader parameters, config.Object(field));
    return ReadRopeParameters(parameters, defaults);
  }
  LWQ_ASSIGN_OR_RETURN(const ConfigReader nothing, ConfigReader::Parse("{}"));
  return ReadRopeParameters(nothing, defaults);
}

}  // namespace lwq

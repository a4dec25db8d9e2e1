#include "records/option_records.h"

namespace lwq {
namespace {

struct TypePair {
  OptionDef::Type type;
  v1::OptionSpec::Type proto;
};
constexpr TypePair kTypes[] = {
    {OptionDef::Type::kFlag, v1::OptionSpec::FLAG},
    {OptionDef::Type::kInteger, v1::OptionSpec::INTEGER},
    {OptionDef::Type::kNumber, v1::OptionSpec::NUMBER},
    {OptionDef::Type::kChoice, v1::OptionSpec::CHOICE},
};

}  // namespace

void OptionsToProto(absl::Span<const OptionDef> defs,
                    google::protobuf::RepeatedPtrField<v1::OptionSpec>* specs) {
  for (const OptionDef& def : defs) {
    v1::OptionSpec& spec = *specs->Add();
    spec.set_name(std::string(def.name));
    for (const TypePair& pair : kTypes) {
      if (pair.type == def.type) spec.set_type(pair.proto);
    }
    spec.set_default_value(std::string(def.default_value));
    spec.set_minimum(def.minimum);
    spec.set_maximum(def.maximum);
    spec.set_choices(std::string(def.choices));
    spec.set_help(std::string(def.help));
  }
}

std::vector<OptionDef> OptionsOf(const google::protobuf::RepeatedPtrField<v1::OptionSpec>& specs) {
  std::vector<OptionDef> defs;
  for (const v1::OptionSpec& spec : specs) {
    OptionDef& def = defs.emplace_back();
    def.name = spec.name();
    for (const TypePair& pair : kTypes) {
      if (pair.proto == spec.type()) def.type = pair.type;
    }
    def.default_value = spec.default_value();
    def.minimum = spec.minimum();
    def.maximum = spec.maximum();
    def.choices = spec.choices();
    def.help = spec.help();
  }
  return defs;
}

OptionTexts TextsOf(const OptionMap& map) { return OptionTexts(map.begin(), map.end()); }

void TextsToProto(const OptionTexts& texts, OptionMap* map) {
  map->clear();
  for (const auto& [name, text] : texts) (*map)[name] = text;
}

bool Refines(const OptionMap& method_options, bool otherwise) {
  const auto rounding = method_options.find("rounding");
  if (rounding != method_options.end() && rounding->second == "nearest") return false;
  const auto refinement = method_options.find("refinement");
  return refinement == method_options.end() ? otherwise : refinement->second == "true";
}

}  // namespace lwq

// Declared options and their values, between the records and base/option.h.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/option.h"
#include "google/protobuf/map.h"
#include "google/protobuf/repeated_field.h"
#include "proto/lwq/v1/worker_service.pb.h"

namespace lwq {

using OptionMap = google::protobuf::Map<std::string, std::string>;

void OptionsToProto(absl::Span<const OptionDef> defs,
                    google::protobuf::RepeatedPtrField<v1::OptionSpec>* specs);
// Borrows the texts of `specs`.
std::vector<OptionDef> OptionsOf(const google::protobuf::RepeatedPtrField<v1::OptionSpec>& specs);

OptionTexts TextsOf(const OptionMap& map);
void TextsToProto(const OptionTexts& texts, OptionMap* map);

// Whether a method with these options keeps its second moments for refinement after it has factored
// them, which a third of its memory is for: not where it rounds to nearest, else as its option says,
// and `otherwise` where it does not say.
bool Refines(const OptionMap& method_options, bool otherwise = true);

}  // namespace lwq

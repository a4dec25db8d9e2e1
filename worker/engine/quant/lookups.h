// A tied head is the table that tokens are looked up in, too. As a head its rows are multiplied
// with the last layer's outputs, and errors count as second moments H say; as a table an error of a
// row counts by itself, whatever its direction. Its second moments are H and a share of the unit
// matrix.
#pragma once

#include "absl/status/status.h"
#include "base/option.h"
#include "worker/engine/device/device.h"

namespace lwq {

// A share of .3 lowers the KL of the sample at 2 bits by 7 % (docs/results/formats.md).
inline constexpr OptionDef kLookupShare = {
    .name = "lookup-share",
    .type = OptionDef::Type::kNumber,
    .default_value = "0.3",
    .minimum = 0,
    .maximum = 1000,
    .help = "what errors of a tied head count as those of the embedding",
};

// Adds `share` times the mean of the diagonal to the diagonal of `gram` [K, K].
absl::Status AddLookups(Device* device, double share, DeviceView<float> gram);

}  // namespace lwq

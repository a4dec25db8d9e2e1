// The damage of a unit in many formats from measurements in two of them. What quantizing one unit
// does to the model's predictions grows with the squared error of the unit's output, to a power
// that is near one where errors are small and is the unit's own where they are not; the quantizer
// knows that error in every format without running the model.
#pragma once

#include <cstddef>
#include <vector>

namespace lwq {

// Which formats to measure, given the error of each (coarsest first): those whose error is not
// known (not above zero); and of the others the coarsest, and the first whose error is a twelfth of
// that or less (two bits finer on a grid).
std::vector<size_t> FormatsToMeasure(const std::vector<double>& errors);

// The cost in every format: as `measured` in those that were, for the others along the power of the
// error that leads through the two of FormatsToMeasure, as far as a power from a half to two does;
// never outside of the two for a format between them.
std::vector<double> CostsFromErrors(const std::vector<double>& errors,
                                    const std::vector<size_t>& measured_formats,
                                    const std::vector<double>& measured);

}  // namespace lwq

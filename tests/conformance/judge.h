// How an operation of a device is judged: against the reference, whose sums are in F64, within a
// bound that the test derives; and the bound against an error that it must not let pass.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>

#include "tests/testing/test_devices.h"

namespace lwq::testing {

inline constexpr double kEps = 6e-8;  // half a unit in the last place of F32

inline Matrix Random(int64_t rows, int64_t cols, uint64_t seed, float scale = 1) {
  std::mt19937_64 generator(seed);
  Matrix m(rows, cols);
  for (int64_t i = 0; i < m.size(); ++i) {
    // Not a distribution of the standard library: those differ between implementations.
    const double u = static_cast<double>(generator() >> 11) * 0x1p-53;
    m.data()[i] = static_cast<float>((2 * u - 1) * scale);
  }
  return m;
}

inline Matrix Zeros(int64_t rows, int64_t cols) {
  Matrix m(rows, cols);
  std::fill_n(m.data(), m.size(), 0.0f);
  return m;
}

// The largest |a - b|; infinite where one is not a number.
inline double LargestDifference(const Matrix& a, const Matrix& b) {
  double worst = 0;
  for (int64_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(double{a.data()[i]} - b.data()[i]);
    worst = difference >= 0 ? std::max(worst, difference) : INFINITY;
  }
  return worst;
}

// An operation as a function of the device: fills `out` from fixed inputs.
using Operation = std::function<absl::Status(Device& device, DeviceView<float> out)>;

class Judge {
 public:
  // `start` is what the output holds before.
  Judge(const TestDevice& device, Operation operation, const Matrix& start)
      : device_(device), operation_(std::move(operation)), start_(start) {}

  // The device's result lies within `bound` of the reference's and has the same bits for every
  // number of threads. The bound itself is judged by the output's scale: one element that is wrong
  // by a hundredth of the largest must not pass.
  ::testing::AssertionResult Within(double bound) const {
    Matrix expected, found;
    if (auto ran = Run(*MakeReference(), expected); !ran) return ran;
    for (const int threads : device_.thread_counts) {
      Matrix again;
      if (auto ran = Run(*device_.make(threads), again); !ran) return ran;
      if (found.size() == 0)
        found = std::move(again);
      else if (!SameBits(found, again)) {
        return ::testing::AssertionFailure() << threads << " threads give other bits than one";
      }
    }
    const double worst = LargestDifference(found, expected);
    if (!(worst <= bound)) {
      return ::testing::AssertionFailure()
             << device_.name << " differs from the reference by " << worst << ", bound " << bound;
    }
    return RefusesWrongResults(found, expected, bound);
  }

 private:
  static std::unique_ptr<Device> MakeReference() { return std::make_unique<ReferenceDevice>(); }

  ::testing::AssertionResult Run(Device& device, Matrix& out) const {
    const auto result = OnDevice(&device, start_.view());
    const absl::Status status = operation_(device, result->view());
    if (!status.ok()) return ::testing::AssertionFailure() << device.name() << ": " << status;
    out = OnHost(device, result->view());
    return ::testing::AssertionSuccess();
  }

  static bool SameBits(const Matrix& a, const Matrix& b) {
    return std::memcmp(a.data(), b.data(), sizeof(float) * static_cast<size_t>(a.size())) == 0;
  }

  static ::testing::AssertionResult RefusesWrongResults(Matrix& found, const Matrix& expected,
                                                        double bound) {
    double scale = 0;
    for (int64_t i = 0; i < expected.size(); ++i) {
      scale = std::max(scale, std::abs(double{expected.data()[i]}));
    }
    if (found.size() == 0) return ::testing::AssertionSuccess();
    for (const int64_t at : {int64_t{0}, found.size() / 2, found.size() - 1}) {
      const float right = found.data()[at];
      found.data()[at] += static_cast<float>(0.01 * scale);
      const bool passes = LargestDifference(found, expected) <= bound;
      found.data()[at] = right;
      if (passes) {
        return ::testing::AssertionFailure()
               << "the bound of " << bound << " lets an error of a hundredth of " << scale
               << " pass, the output's largest value";
      }
    }
    return ::testing::AssertionSuccess();
  }

  const TestDevice& device_;
  const Operation operation_;
  const Matrix& start_;
};

}  // namespace lwq::testing

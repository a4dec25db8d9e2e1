// The searches over a codebook's points against trying everything.
#include "worker/engine/gguf/codebook.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "worker/engine/gguf/block_type.h"

namespace lwq {
namespace {

constexpr int kCell = Codebook::kMaxCell;
constexpr GgufType kTypes[] = {GgufType::kIQ2_XXS, GgufType::kIQ2_XS, GgufType::kIQ2_S,
                               GgufType::kIQ3_XXS, GgufType::kIQ3_S};

// One type's codes, with a way of its own to all that a cell may have.
struct Book {
  explicit Book(GgufType id)
      : type(DefOf(id)), layout(type.shape->layout->codebook), codebook(type.shape->codebook()) {}

  int cell() const { return codebook.cell_size(); }
  int size() const { return layout.point_size; }
  bool even() const { return layout.signs.bits == 7; }
  float Level(int code) const { return type.shape->levels[static_cast<size_t>(code)]; }
  std::vector<uint8_t> Codes(int point, unsigned negative) const {
    std::vector<uint8_t> codes;
    for (int i = 0; i < size(); ++i) {
      const bool minus = (negative >> i & 1) != 0;
      codes.push_back(static_cast<uint8_t>(layout.CodeOf(layout.Magnitude(point, i), minus)));
    }
    return codes;
  }
  // The least that `error` of a point's codes is, by whether the number of signs is odd.
  template <typename Error>
  std::array<double, 2> Least(int first, const Error& error) const {
    std::array<double, 2> least;
    least.fill(std::numeric_limits<double>::infinity());
    for (unsigned negative = 0; negative < 1u << size(); ++negative) {
      double& of = least[static_cast<size_t>(std::popcount(negative) % 2)];
      for (int p = 0; p < layout.num_points; ++p)
        of = std::min(of, error(first, Codes(p, negative)));
    }
    return least;
  }
  bool Has(const uint8_t* codes) const {
    int negative = 0;
    for (int i = 0; i < cell(); ++i) negative += codes[i] < layout.magnitudes ? 1 : 0;
    if (even() && negative % 2 != 0) return false;
    for (int i = 0; i < cell(); i += size()) {
      if (codebook.PointOf(codes + i) < 0) return false;
    }
    return true;
  }

  const GgufTypeDef& type;
  const CodebookLayout& layout;
  const Codebook& codebook;
};

std::vector<float> Normal(std::mt19937& random, int count, float deviation) {
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// Of costs that are all infinite none would be the least.
TEST(CodebookTest, AWeightThatOverflowsIsALargeOne) {
  for (const GgufType id : kTypes) {
    const Book book(id);
    const auto error_of = [&book](float weight) {
      const std::vector<float> values(kCell, 1000), weights(kCell, weight);
      std::array<uint8_t, kCell> codes = {};
      book.codebook.Round(values.data(), weights.data(), codes.data());
      double error = 0;
      for (int i = 0; i < book.cell(); ++i) error += std::pow(1000 - book.Level(codes[i]), 2);
      return error;
    };
    const double least = error_of(1);  // of points that are equally far any may be taken
    EXPECT_NEAR(error_of(1e34f) / least, 1, 1e-6) << book.type.name;
    EXPECT_NEAR(error_of(std::numeric_limits<float>::infinity()) / least, 1, 1e-6);
  }
}

TEST(CodebookTest, PointsAreThoseOfTheTable) {
  for (const GgufType id : kTypes) {
    const Book book(id);
    for (int p = 0; p < book.layout.num_points; ++p) {
      const std::vector<uint8_t> codes = book.Codes(p, static_cast<unsigned>(p) % 16);
      EXPECT_EQ(book.codebook.PointOf(codes.data()), p) << book.type.name;
    }
    const std::vector<uint8_t> none(8, static_cast<uint8_t>(book.size() == 8 ? 4 : 14));
    EXPECT_EQ(book.codebook.PointOf(none.data()), -1) << book.type.name;
  }
}

// Where signs are free no codes at all are nearer. Where they are tied, one of three flips is
// chosen, and on average little is lost.
TEST(CodebookTest, RoundsToTheNearestCodesThereAre) {
  std::mt19937 random(1);
  for (const GgufType id : kTypes) {
    const Book book(id);
    double sum = 0, least_sum = 0;
    for (int round = 0; round < 12; ++round) {
      const std::vector<float> v = Normal(random, book.cell(), round < 9 ? 4.0f : 20.0f);
      std::vector<float> w = Normal(random, book.cell(), 1.2f);
      for (float& weight : w) weight = std::exp(weight);
      const auto error = [&](int first, const std::vector<uint8_t>& codes) {
        double of = 0;
        for (size_t i = 0; i < codes.size(); ++i) {
          const size_t at = static_cast<size_t>(first) + i;
          of += w[at] * std::pow(double{v[at]} - book.Level(codes[i]), 2);
        }
        return of;
      };
      std::vector<uint8_t> codes(static_cast<size_t>(book.cell()));
      book.codebook.Round(v.data(), w.data(), codes.data());
      ASSERT_TRUE(book.Has(codes.data())) << book.type.name;
      const double found = error(0, codes);
      std::array<double, 2> least = book.Least(0, error);
      if (book.cell() > book.size()) {
        const std::array<double, 2> other = book.Least(book.size(), error);
        least = {std::min(least[0] + other[0], least[1] + other[1]), 0};
      }
      const double best = book.even() ? least[0] : std::min(least[0], least[1]);
      EXPECT_GE(found, best * (1 - 1e-5)) << book.type.name;
      EXPECT_TRUE(book.even() || found <= best * (1 + 1e-5)) << book.type.name;
      sum += found;
      least_sum += best;
    }
    EXPECT_LT(sum, 1.01 * least_sum) << book.type.name;
  }
}

TEST(CodebookTest, AnyFloatsRoundToSomeCodes) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const GgufType id : kTypes) {
    const Book book(id);
    for (const float value : {0.0f, 1e-40f, -3e38f, 3e38f, infinity, -infinity, std::nanf("")}) {
      for (const float weight : {0.0f, 1.0f, -1.0f, 1e-30f, std::nanf("")}) {
        std::vector<float> v(kCell, 0.5f), w(kCell, weight);
        v[1] = value;
        uint8_t codes[kCell];
        book.codebook.Round(v.data(), w.data(), codes);
        EXPECT_TRUE(book.Has(codes)) << book.type.name << " " << value << " " << weight;
      }
    }
  }
}

// A cell with its H and what other cells leave of the residual.
struct Problem {
  Problem(const Book& book, std::mt19937& random) : book(book), step(0.01f), h(64) {
    const std::vector<float> x = Normal(random, 12 * kCell, 1);
    for (int t = 0; t < 12; ++t) {
      for (int i = 0; i < kCell; ++i) {
        for (int k = 0; k < kCell; ++k) {
          h[static_cast<size_t>(8 * i + k)] +=
              x[static_cast<size_t>(8 * t + i)] * x[static_cast<size_t>(8 * t + k)];
        }
      }
    }
    residual = Normal(random, kCell, 0.6f);
    const std::vector<float> v = Normal(random, kCell, 5), ones(kCell, 1);
    codes.resize(static_cast<size_t>(book.cell()));
    book.codebook.Round(v.data(), ones.data(), codes.data());
  }
  // What the error changes by when the codes from `first` on become `to`.
  double Change(const std::vector<uint8_t>& from, int first, const std::vector<uint8_t>& to) const {
    std::vector<double> x(kCell, 0.0);
    for (size_t i = 0; i < to.size(); ++i) {
      const size_t at = static_cast<size_t>(first) + i;
      x[at] = double{step} * (double{book.Level(to[i])} - book.Level(from[at]));
    }
    double change = 0;
    for (size_t i = 0; i < kCell; ++i) {
      change -= 2 * x[i] * residual[i];
      for (size_t k = 0; k < kCell; ++k) change += x[i] * h[8 * i + k] * x[k];
    }
    return change;
  }

  const Book& book;
  float step;
  std::vector<float> h, residual;
  std::vector<uint8_t> codes;
};

TEST(CodebookTest, MovesGainWhatTheySayAndEndWhereNoPointImproves) {
  std::mt19937 random(2);
  for (const GgufType id : kTypes) {
    const Book book(id);
    int moved = 0;
    for (int round = 0; round < 20; ++round) {
      Problem p(book, random);
      const std::vector<uint8_t> before = p.codes;
      double gain = 0, last = 1;
      for (int sweep = 0; last > 0 && sweep < 50; ++sweep) {
        // The residual of the codes as they are.
        std::vector<float> now = p.residual;
        for (size_t i = 0; i < p.codes.size(); ++i) {
          const float x = p.step * (book.Level(p.codes[i]) - book.Level(before[i]));
          for (size_t k = 0; k < kCell; ++k) now[k] -= x * p.h[8 * i + k];
        }
        last = book.codebook.Move(p.step, p.h.data(), kCell, now.data(), p.codes.data());
        ASSERT_TRUE(book.Has(p.codes.data())) << book.type.name;
        gain += last;
      }
      ASSERT_EQ(last, 0) << book.type.name << ": still moves";
      moved += gain > 0 ? 1 : 0;
      const double change = p.Change(before, 0, p.codes);
      EXPECT_NEAR(gain, -change, 1e-4 * gain + 1e-9) << book.type.name;
      // Every other point with the signs that there are.
      for (int first = 0; first < book.cell(); first += book.size()) {
        unsigned negative = 0;
        for (int i = 0; i < book.size(); ++i) {
          const bool minus = p.codes[static_cast<size_t>(first + i)] < book.layout.magnitudes;
          negative |= (minus ? 1u : 0u) << i;
        }
        for (int point = 0; point < book.layout.num_points; ++point) {
          std::vector<uint8_t> other = p.codes;
          const std::vector<uint8_t> part = book.Codes(point, negative);
          std::copy(part.begin(), part.end(), other.begin() + first);
          EXPECT_GE(p.Change(before, 0, other), change - 1e-5 * std::abs(change) - 1e-9)
              << book.type.name << ", point " << point;
        }
      }
    }
    EXPECT_GT(moved, 15) << book.type.name;
  }
}

// Where nothing pulls nothing moves, and values without inputs stop nothing.
TEST(CodebookTest, NothingMovesWithoutAReason) {
  std::mt19937 random(3);
  for (const GgufType id : kTypes) {
    const Book book(id);
    Problem p(book, random);
    const std::vector<uint8_t> before = p.codes;
    const std::vector<float> zeros(64, 0.0f);
    EXPECT_EQ(book.codebook.Move(p.step, p.h.data(), kCell, zeros.data(), p.codes.data()), 0);
    EXPECT_EQ(p.codes, before) << book.type.name;
    EXPECT_EQ(book.codebook.Move(p.step, zeros.data(), kCell, zeros.data(), p.codes.data()), 0);
    EXPECT_EQ(book.codebook.Move(0, p.h.data(), kCell, p.residual.data(), p.codes.data()), 0);
    EXPECT_EQ(p.codes, before) << book.type.name;
  }
}

}  // namespace
}  // namespace lwq

#include "worker/engine/plan/pareto_front.h"

#include <algorithm>
#include <random>

#include "gtest/gtest.h"

namespace lwq {
namespace {

using Options = std::vector<std::vector<ParetoOption>>;

ParetoOption Total(const Options& options, const std::vector<int>& choices) {
  ParetoOption total;
  for (size_t u = 0; u < options.size(); ++u) {
    total.bytes += options[u][choices[u]].bytes;
    total.cost += options[u][choices[u]].cost;
  }
  return total;
}

// Calls `visit` with the total of every combination.
template <typename Visit>
void Enumerate(const Options& options, const Visit& visit) {
  std::vector<int> choices(options.size(), 0);
  for (;;) {
    visit(Total(options, choices));
    size_t u = 0;
    while (u < options.size() && ++choices[u] == static_cast<int>(options[u].size())) {
      choices[u++] = 0;
    }
    if (u == options.size()) return;
  }
}

Options RandomOptions(std::mt19937& random, int max_units, int max_options, int max_bytes) {
  Options options(1 + random() % max_units);
  for (auto& unit : options) {
    unit.resize(1 + random() % max_options);
    // Costs in any order: some options are larger and worse. Small integers make ties.
    for (auto& o : unit) o = {static_cast<int64_t>(random() % max_bytes), (random() % 50) / 8.0};
  }
  return options;
}

// Sums of eighths are exact, so the comparison is of equality.
TEST(ParetoFrontTest, EqualsBruteForceAtEveryBudget) {
  std::mt19937 random(1);
  for (int instance = 0; instance < 1500; ++instance) {
    const Options options = RandomOptions(random, instance < 1400 ? 5 : 8, 4, 40);
    std::vector<double> best(8 * 40 + 1, 1e9);
    Enumerate(options,
              [&](const ParetoOption& p) { best[p.bytes] = std::min(best[p.bytes], p.cost); });
    const ParetoFront front = ParetoFront::Build(options);
    ASSERT_EQ(front.granule(), 0);
    double cheapest = 1e9;
    for (int64_t budget = 0; budget < static_cast<int64_t>(best.size()); ++budget) {
      cheapest = std::min(cheapest, best[budget]);
      const int64_t i = front.LastWithin(budget);
      if (cheapest == 1e9) {
        ASSERT_EQ(i, -1);
        continue;
      }
      ASSERT_GE(i, 0);
      ASSERT_EQ(front.point(i).cost, cheapest) << "instance " << instance << " budget " << budget;
      const ParetoOption total = Total(options, front.Choices(i));
      ASSERT_EQ(total.bytes, front.point(i).bytes);
      ASSERT_EQ(total.cost, front.point(i).cost);
    }
  }
}

// Within a window the best plan of every budget is there, at a fraction of the points.
TEST(ParetoFrontTest, APartOfItEqualsTheWhole) {
  std::mt19937 random(4);
  size_t whole_points = 0, part_points = 0;
  for (int instance = 0; instance < 300; ++instance) {
    const Options options = RandomOptions(random, 30, 5, 2000);
    const ParetoFront whole = ParetoFront::Build(options, size_t{1} << 24);
    const int64_t smallest = whole.point(0).bytes;
    const int64_t largest = whole.point(whole.size() - 1).bytes;
    const int64_t low = smallest + static_cast<int64_t>(random() % (largest - smallest + 50));
    const int64_t high = low + static_cast<int64_t>(random() % 40);
    const ParetoFront part = ParetoFront::BuildWithin(options, low, high, size_t{1} << 24);
    ASSERT_LE(part.point(0).bytes, low);
    for (int64_t budget = low; budget <= high; ++budget) {
      const int64_t i = part.LastWithin(budget);
      ASSERT_GE(i, 0);
      const ParetoOption best = whole.point(whole.LastWithin(budget));
      ASSERT_EQ(part.point(i).cost, best.cost) << "instance " << instance << " budget " << budget;
      const ParetoOption total = Total(options, part.Choices(i));
      ASSERT_EQ(total.bytes, part.point(i).bytes);
      ASSERT_EQ(total.cost, part.point(i).cost);
    }
    whole_points += whole.size();
    part_points += part.size();
  }
  EXPECT_LT(part_points, whole_points / 4);
}

TEST(ParetoFrontTest, IsStrictlyMonotone) {
  std::mt19937 random(2);
  const ParetoFront front = ParetoFront::Build(RandomOptions(random, 60, 6, 1000));
  for (size_t i = 1; i < front.size(); ++i) {
    EXPECT_LT(front.point(i - 1).bytes, front.point(i).bytes);
    EXPECT_GT(front.point(i - 1).cost, front.point(i).cost);
  }
}

// Thinned, a plan costs no more than the exact one of a budget smaller by units * granule.
TEST(ParetoFrontTest, ThinnedStaysWithinItsBound) {
  std::mt19937 random(3);
  for (int instance = 0; instance < 20; ++instance) {
    Options options(24);
    for (auto& unit : options) {
      for (int o = 0; o < 4; ++o) {
        unit.push_back({static_cast<int64_t>(1 + random() % 100000) * (o + 1),
                        4.0 - o + (random() % 1024) / 1024.0});
      }
    }
    const ParetoFront exact = ParetoFront::Build(options, size_t{1} << 24);
    const ParetoFront thin = ParetoFront::Build(options, 60);
    ASSERT_EQ(exact.granule(), 0);
    ASSERT_GT(thin.granule(), 0);
    ASSERT_LE(thin.size(), 62u);
    EXPECT_EQ(thin.point(0).bytes, exact.point(0).bytes);
    const int64_t loss = thin.granule() * static_cast<int64_t>(options.size());
    for (size_t i = 0; i < exact.size(); i += 7) {
      const int64_t j = thin.LastWithin(exact.point(i).bytes + loss);
      ASSERT_GE(j, 0);
      ASSERT_LE(thin.point(j).cost, exact.point(i).cost);
      ASSERT_EQ(Total(options, thin.Choices(j)).bytes, thin.point(j).bytes);
    }
  }
}

TEST(ParetoFrontTest, GivesTiesToTheEarlierUnit) {
  const Options options(3, {{10, 4}, {20, 1}});
  const ParetoFront front = ParetoFront::Build(options);
  EXPECT_EQ(front.Choices(front.LastWithin(40)), (std::vector<int>{1, 0, 0}));
  EXPECT_EQ(front.Choices(front.LastWithin(50)), (std::vector<int>{1, 1, 0}));
}

TEST(ParetoFrontTest, PermutingUnitsPermutesTheAnswer) {
  std::mt19937 random(4);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int instance = 0; instance < 50; ++instance) {
    Options options(6);
    for (auto& unit : options) {
      for (int o = 0; o < 4; ++o) {
        unit.push_back(
            {static_cast<int64_t>(10 * (o + 1) + random() % 7), uniform(random) / (1 << 2 * o)});
      }
    }
    std::vector<size_t> order = {3, 0, 5, 1, 4, 2};
    Options permuted;
    for (size_t u : order) permuted.push_back(options[u]);
    const int64_t budget = 120 + random() % 60;
    const ParetoFront a = ParetoFront::Build(options), b = ParetoFront::Build(permuted);
    if (a.LastWithin(budget) < 0) continue;
    const auto x = a.Choices(a.LastWithin(budget)), y = b.Choices(b.LastWithin(budget));
    for (size_t u = 0; u < order.size(); ++u) EXPECT_EQ(y[u], x[order[u]]);
  }
}

TEST(ParetoFrontTest, IgnoresConstantsAndFreeUnits) {
  std::mt19937 random(5);
  for (int instance = 0; instance < 100; ++instance) {
    Options options = RandomOptions(random, 6, 4, 40);
    const ParetoFront plain = ParetoFront::Build(options);
    Options shifted = options;
    for (auto& o : shifted[0]) o.cost += 16;  // exact in binary
    Options with_free = options;
    with_free.push_back({{0, 0}, {5, 0}});  // a half that costs nothing stays at its smallest
    const ParetoFront a = ParetoFront::Build(shifted), b = ParetoFront::Build(with_free);
    ASSERT_EQ(a.size(), plain.size());
    ASSERT_EQ(b.size(), plain.size());
    for (size_t i = 0; i < plain.size(); ++i) {
      EXPECT_EQ(a.Choices(i), plain.Choices(i));
      std::vector<int> expected = plain.Choices(i);
      expected.push_back(0);
      EXPECT_EQ(b.Choices(i), expected);
    }
  }
}

}  // namespace
}  // namespace lwq

#include "tests/simulation/world.h"

#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lwq::simulation {

World::World(uint64_t seed, bool tells) : state_(seed), tells_(tells) {}

// SplitMix64 (Steele, Lea, Flood 2014): one addition and a mix, and every seed is as good as
// another.
uint64_t World::Draw() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

bool World::Chance(double probability) {
  return static_cast<double>(Draw() >> 11) * 0x1p-53 < probability;
}

int World::Below(int n) { return static_cast<int>(Draw() % static_cast<uint64_t>(n)); }

absl::Duration World::Between(absl::Duration least, absl::Duration most) {
  const int64_t span = absl::ToInt64Microseconds(most - least);
  return least + absl::Microseconds(static_cast<int64_t>(Draw() % static_cast<uint64_t>(span + 1)));
}

std::string World::Hex(int num_bytes) {
  std::string hex;
  for (int i = 0; i < num_bytes; ++i) absl::StrAppendFormat(&hex, "%02x", Draw() & 0xff);
  return hex;
}

void World::After(absl::Duration wait, std::function<void()> act) {
  events_.emplace(std::make_pair(now_ + wait, next_++), std::move(act));
}

bool World::RunNext(absl::Duration end) {
  if (events_.empty() || events_.begin()->first.first > end) {
    now_ = end;
    return false;
  }
  auto first = events_.extract(events_.begin());
  now_ = first.key().first;
  ++num_steps_;
  first.mapped()();
  return true;
}

void World::Note(absl::string_view what) {
  for (const char c : absl::StrCat(absl::ToInt64Microseconds(now_), what)) {
    trace_ = (trace_ ^ static_cast<unsigned char>(c)) * 1099511628211u;
  }
  if (tells_) std::cout << absl::StrFormat("%10.3f  ", absl::ToDoubleSeconds(now_)) << what << "\n";
}

void World::Break(absl::string_view invariant, absl::string_view how) {
  if (broken()) return;
  broken_ = absl::StrCat(invariant, " at ", absl::FormatDuration(now_), ": ", how);
  Note(broken_);
}

}  // namespace lwq::simulation

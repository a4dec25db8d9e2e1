// One suite for every store: store_conformance_test.cc holds the cases, and the test file of an
// implementation runs them over it by
//   INSTANTIATE_TEST_SUITE_P(Memory, StoreConformance, ::testing::Values(&MakeMemoryMedium));
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/store/store.h"

namespace lwq::testing {

// What holds the records, and outlives the store that is open on it.
class StoreMedium {
 public:
  virtual ~StoreMedium() = default;
  virtual Store& store() = 0;
  // The store is closed and another opened on what it left.
  virtual void Reopen() = 0;
  // What keeps the records dies without warning, and another store is opened on what it left.
  virtual void Crash() = 0;
};

// Makes an empty medium; null skips the case, where what it needs is not installed.
using StoreMediumFactory = std::unique_ptr<StoreMedium> (*)();

class StoreConformance : public ::testing::TestWithParam<StoreMediumFactory> {
 protected:
  void SetUp() override {
    medium_ = GetParam()();
    if (medium_ == nullptr) GTEST_SKIP() << "the medium is not installed here";
  }
  Store& store() { return medium_->store(); }

  std::unique_ptr<StoreMedium> medium_;
};

// A row of the jobs table.
inline Write PutRow(const std::string& key, const std::string& value, int64_t order = 0,
                    int state = 0, const std::string& tag = "") {
  Write write{.table = Table::kJobs};
  write.record.key = key;
  write.record.value = value;
  write.record.order = order;
  write.record.state = state;
  write.record.tag = tag;
  return write;
}

inline Write PutRowAt(const std::string& key, const std::string& value, int64_t expected_version) {
  Write write = PutRow(key, value);
  write.expected_version = expected_version;
  return write;
}

inline Write RemoveRow(const std::string& key) {
  Write write = PutRow(key, "");
  write.remove = true;
  return write;
}

inline Write CheckRow(const std::string& key, int64_t expected_version) {
  Write write = PutRowAt(key, "", expected_version);
  write.check_only = true;
  return write;
}

}  // namespace lwq::testing

// One suite for every blob store: blob_store_conformance_test.cc holds the cases, and the test file
// of an implementation runs them over it by
//   INSTANTIATE_TEST_SUITE_P(Memory, BlobStoreConformance, ::testing::Values(&MakeMemoryMedium));
#pragma once

#include <memory>

#include "gtest/gtest.h"
#include "server/blob/blob_store.h"

namespace lwq::testing {

// What holds the blobs, and outlives the store that is open on it.
class BlobMedium {
 public:
  virtual ~BlobMedium() = default;
  virtual BlobStore& store() = 0;
  // As after a crash of the process: the store is gone, and another is open on what it left.
  virtual void Reopen() = 0;
  // What a bad disk does: one bit of byte `offset` changes.
  virtual void FlipBit(const BlobId& id, int64_t offset) = 0;
  // How much it takes; 0: nobody knows.
  virtual int64_t capacity_bytes() const = 0;
};

// Makes an empty medium; null skips the case, where what it needs is not installed.
using BlobMediumFactory = std::unique_ptr<BlobMedium> (*)();

class BlobStoreConformance : public ::testing::TestWithParam<BlobMediumFactory> {
 protected:
  void SetUp() override {
    medium_ = GetParam()();
    if (medium_ == nullptr) GTEST_SKIP() << "the medium is not installed here";
  }
  BlobStore& blobs() { return medium_->store(); }

  std::unique_ptr<BlobMedium> medium_;
};

}  // namespace lwq::testing

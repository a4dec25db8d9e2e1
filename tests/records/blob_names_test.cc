#include "records/blob_names.h"

#include "gtest/gtest.h"

namespace lwq {
namespace {

TEST(BlobNamesTest, AUnitsBlobNamesItsFormat) {
  EXPECT_EQ(UnitBlobName("layers.3.mlp.down_proj", "int4-g128"),
            "layers.3.mlp.down_proj.int4-g128");
}

TEST(BlobNamesTest, ALayersEditsAreNoUnit) { EXPECT_EQ(EditsBlobName(3), "layers.3.edits"); }

}  // namespace
}  // namespace lwq

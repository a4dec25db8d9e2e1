#include "worker/engine/format/row_tiles.h"

#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/format/grid.h"

namespace lwq {
namespace {

TEST(RowTilesTest, TilesAreWholeRowsInMultiplesOf32) {
  EXPECT_EQ(TileRows(2048, 8192, int64_t{1} << 22), 512);
  EXPECT_EQ(TileRows(576, 1536, int64_t{1} << 22), 576) << "all of a small linear";
  EXPECT_EQ(TileRows(4096, 14336, int64_t{1} << 22), 288);
  EXPECT_EQ(TileRows(4096, 1 << 20, 1000), 32);
  EXPECT_EQ(TileRows(8, 1 << 20, 1000), 8);
}

// Rows [first, first + count) of made codes, scales and zeros.
GridCodes Rows(const GridFormat& format, int64_t first, int64_t count, int64_t cols) {
  GridCodes rows;
  rows.out_features = count;
  rows.in_features = cols;
  const int64_t groups = format.NumGroups(cols);
  const int largest = (1 << format.bits()) - 1;
  rows.scales = Matrix(count, groups);
  if (!format.symmetric()) rows.zeros = Matrix(count, groups);
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      rows.codes.push_back(static_cast<uint8_t>(((first + r) * 31 + c * 7) & largest));
    }
    for (int64_t g = 0; g < groups; ++g) {
      rows.scales.Row(r)[g] = 0x1p-8f * static_cast<float>((first + r) % 50 + g + 1);
      if (!format.symmetric()) {
        rows.zeros.Row(r)[g] = static_cast<float>(((first + r) * 3 + g) & largest);
      }
    }
  }
  return rows;
}

// At every width, zero points too: those are packed along rows.
TEST(RowTilesTest, TilesPutTogetherAreTheWhole) {
  constexpr int64_t kRows = 96, kCols = 64;
  for (const bool symmetric : {true, false}) {
    for (int bits = 2; bits <= 8; ++bits) {
      const GridFormat& format = *GridFormat::Find(bits, 32, symmetric);
      LWQ_ASSERT_OK_AND_ASSIGN(const EncodedLinear whole,
                               format.Encode("m", Rows(format, 0, kRows, kCols), DType::kBF16));
      EncodedLinear tiled;
      for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 64}, {64, 32}}) {
        LWQ_ASSERT_OK_AND_ASSIGN(
            EncodedLinear rows,
            format.Encode("m", Rows(format, first, count, kCols), DType::kBF16));
        AppendRows(std::move(rows), count, kRows, tiled);
      }
      ASSERT_EQ(tiled.size(), whole.size());
      for (size_t p = 0; p < whole.size(); ++p) {
        EXPECT_EQ(tiled[p].spec.shape, whole[p].spec.shape) << format.id();
        EXPECT_EQ(tiled[p].bytes, whole[p].bytes) << format.id() << " " << whole[p].spec.name;
      }
    }
  }
}

}  // namespace
}  // namespace lwq

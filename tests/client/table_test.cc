#include "client/table.h"

#include "gtest/gtest.h"

namespace lwq::client {
namespace {

TEST(TableTest, AlignsLeftAndRightWithoutTrailingBlanks) {
  Table table({"measure", ">source", "note"});
  table.AddRow({"a", "1.5", "x"});
  table.AddRow({"longer one", "12.25"});
  EXPECT_EQ(table.Text(),
            "measure     source  note\n"
            "a              1.5  x\n"
            "longer one   12.25\n");
}

TEST(TableTest, NoHeadingLineWithoutHeadingsAndUtf8CountsOnce) {
  Table table({"", ""});
  table.AddRow({"\xC3\xA9", "x"});  // one letter, two bytes
  table.AddRow({"ab", "y"});
  EXPECT_EQ(table.Text(), "\xC3\xA9   x\nab  y\n");
}

// Whoever names a job, and a server besides, writes into its readers' terminals.
TEST(TableTest, CellsGiveATerminalNoOrders) {
  Table table({"", ""});
  table.AddRow({"failure", "\x1b]0;pwned\x07"});
  EXPECT_EQ(table.Text(), "failure  \\x1b]0;pwned\\x07\n");
}

}  // namespace
}  // namespace lwq::client

#include "worker/engine/artifact/unit_blob.h"

#include "base/file.h"
#include "base/hash.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/format/grid.h"

namespace lwq {
namespace {

EncodedModule Module(const std::string& name, char fill) {
  const WeightFormat* format = GridFormat::Find(4, 32, true);
  EncodedModule module{name, {}};
  for (PartSpec& part : format->Parts(8, 64, DType::kF16)) {
    const size_t size = static_cast<size_t>(part.size_bytes());
    module.linear.push_back({std::move(part), std::string(size, fill++)});
  }
  return module;
}

// Linears that come one by one make the file that they make together, and nothing stays beside it.
TEST(UnitBlobTest, ASpooledBlobIsTheSameFile) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory scratch, TempDirectory::Create());
  const std::vector<EncodedModule> modules = {Module("experts.10.up", 'a'),
                                              Module("experts.2.up", 'e')};
  const std::string together = JoinPath(scratch.path(), "together");
  const std::string spooled = JoinPath(scratch.path(), "spooled");
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string digest, WriteUnitBlob(together, modules));
  {
    LWQ_ASSERT_OK_AND_ASSIGN(const auto spool, UnitBlobSpool::Create(spooled));
    for (const EncodedModule& module : modules) ASSERT_OK(spool->Add(module));
    LWQ_ASSERT_OK_AND_ASSIGN(const std::string of_spooled, spool->Finish());
    EXPECT_EQ(of_spooled, digest);
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string expected, ReadFile(together, 1 << 20));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string found, ReadFile(spooled, 1 << 20));
  EXPECT_EQ(found, expected);
  EXPECT_EQ(digest, Sha256Hex(expected));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::vector<std::string> files, ListDirectory(scratch.path()));
  EXPECT_EQ(files.size(), 2u);
}

}  // namespace
}  // namespace lwq

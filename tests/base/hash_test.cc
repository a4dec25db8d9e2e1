#include "base/hash.h"

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"

namespace lwq {
namespace {

// FIPS 180-4's examples.
TEST(HashTest, Sha256IsTheStandards) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(HashTest, AHashGoesOnFromWhatWasSaved) {
  const std::string text(1'000'000, 'a');
  for (size_t at : {size_t{0}, size_t{64}, size_t{65'536}, size_t{999'936}}) {
    Sha256 first;
    first.Update(text.substr(0, at));
    Sha256 second;
    ASSERT_TRUE(second.Restore(first.Save()));
    second.Update(text.substr(at));
    EXPECT_EQ(second.FinishHex(),
              "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
  Sha256 hash;
  hash.Update("abc");
  for (const char* bad : {"", "1.2.3", "1.2.3.4.5.6.7.8.9.x", "0.0.0.0.0.0.0.0.0.0.0"}) {
    EXPECT_FALSE(hash.Restore(bad));
  }
  EXPECT_EQ(hash.FinishHex(), Sha256Hex("abc"));
}

// RFC 4231, cases 2 and 6.
TEST(HashTest, HmacIsTheRfcs) {
  EXPECT_EQ(absl::BytesToHexString(HmacSha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(
      absl::BytesToHexString(HmacSha256(std::string(131, '\xaa'),
                                        "Test Using Larger Than Block-Size Key - Hash Key First")),
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

}  // namespace
}  // namespace lwq

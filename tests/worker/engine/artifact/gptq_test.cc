// Golden words: artifact-formats B.2 and B.3, which a reader of GPTQModel's code computed by hand.
#include "worker/engine/artifact/gptq.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/format/grid.h"

namespace lwq {
namespace {

using ::testing::ElementsAre;
using testing::FailsWith;
using ::testing::HasSubstr;

std::vector<uint32_t> Words(absl::Span<const uint8_t> bytes) {
  std::vector<uint32_t> words(bytes.size() / 4);
  std::memcpy(words.data(), bytes.data(), bytes.size());
  return words;
}

// Codes [out, in] = code(n, k), scales of a power of two each.
template <typename CodeOf>
GridCodes Codes(int64_t outs, int64_t ins, int64_t groups, CodeOf code) {
  GridCodes codes;
  codes.out_features = outs;
  codes.in_features = ins;
  for (int64_t n = 0; n < outs; ++n) {
    for (int64_t k = 0; k < ins; ++k) codes.codes.push_back(static_cast<uint8_t>(code(n, k)));
  }
  codes.scales = Matrix(outs, groups);
  for (int64_t n = 0; n < outs; ++n) {
    for (int64_t g = 0; g < groups; ++g) {
      codes.scales.Row(n)[g] = (g % 2 == 0 ? 0.5f : -0.25f) * static_cast<float>(1 + n);
    }
  }
  return codes;
}

// An encoded linear that keeps its bytes.
struct Linear {
  EncodedLinear encoded;
  StoredLinear stored;
};
Linear Encoded(const GridFormat& format, const GridCodes& codes, DType source) {
  Linear linear{format.Encode("m", codes, source).value(),
                {&format, codes.out_features, codes.in_features, {}}};
  for (const EncodedPart& part : linear.encoded) {
    linear.stored.parts.push_back(
        {part.spec.dtype,
         part.spec.shape,
         {reinterpret_cast<const uint8_t*>(part.bytes.data()), part.bytes.size()}});
  }
  return linear;
}

// The tensors of a linear "m" as `coding` writes them, to be damaged and read back.
class Tensors {
 public:
  Tensors(const LinearCoding& coding, const StoredLinear& linear) : coding_(coding) {
    for (const char* name : {"m.qweight", "m.qzeros", "m.scales", "m.g_idx"}) {
      std::string made;
      const TensorView view = coding.Tensor(name, linear, made).value();
      Put(name, view.dtype, view.shape, std::string(view.bytes.begin(), view.bytes.end()));
    }
  }
  void Put(const std::string& name, DType dtype, std::vector<int64_t> shape, std::string bytes) {
    bytes_[name] = std::move(bytes);
    views_[name] = {dtype,
                    std::move(shape),
                    {reinterpret_cast<const uint8_t*>(bytes_[name].data()), bytes_[name].size()}};
  }
  TensorView& operator[](const std::string& name) { return views_[name]; }
  std::string& Bytes(const std::string& name) { return bytes_[name]; }
  void Erase(const std::string& name) { views_.erase(name); }
  absl::StatusOr<OwnedLinear> Read(const std::vector<const WeightFormat*>& declared) const {
    LWQ_ASSIGN_OR_RETURN(const FoundLinear found, Find(declared));
    return coding_.Read("m", found);
  }
  absl::StatusOr<FoundLinear> Find(const std::vector<const WeightFormat*>& declared) const {
    const auto lookup = [this](absl::string_view name) -> absl::StatusOr<TensorView> {
      const auto found = views_.find(std::string(name));
      if (found != views_.end()) return found->second;
      return Failure(absl::StatusCode::kNotFound, "TENSOR_MISSING", name);
    };
    return coding_.Find("m", lookup, declared);
  }

 private:
  const LinearCoding& coding_;
  std::map<std::string, std::string> bytes_;
  std::map<std::string, TensorView> views_;
};

// Column n of qweight is the stream of output n.
TEST(GptqTest, CodesRunDownTheColumns) {
  const int examples[4][4] = {{0, 1, 2, 3}, {4, 5, 6, 7}, {0, 0, 0, 0}, {127, 128, 255, 1}};
  const GridFormat& eight = *GridFormat::Find(8, 0, true);
  const Linear wide =
      Encoded(eight, Codes(32, 32, 1, [&](int64_t n, int64_t k) { return examples[n % 4][k % 4]; }),
              DType::kF16);
  std::string made;
  LWQ_ASSERT_OK_AND_ASSIGN(const TensorView words,
                           GptqCoding().Tensor("m.qweight", wide.stored, made));
  EXPECT_THAT(words.shape, ElementsAre(8, 32));
  const std::vector<uint32_t> found = Words(words.bytes);
  for (int64_t w = 0; w < 8; ++w) {
    EXPECT_EQ(found[static_cast<size_t>(32 * w)], 0x03020100u);
    EXPECT_EQ(found[static_cast<size_t>(32 * w + 3)], 0x01FF807Fu);
  }
  const auto first_column = [](int bits, int period) {
    const GridFormat& format = *GridFormat::Find(bits, 0, true);
    const Linear linear = Encoded(
        format, Codes(32, 32, 1, [&](int64_t n, int64_t k) { return n == 5 ? k % period : 0; }),
        DType::kF16);
    std::string bytes;
    const TensorView view = GptqCoding().Tensor("m.qweight", linear.stored, bytes).value();
    std::vector<uint32_t> column;
    const std::vector<uint32_t> all = Words(view.bytes);
    for (size_t i = 5; i < all.size(); i += 32) column.push_back(all[i]);
    return column;
  };
  EXPECT_THAT(first_column(2, 4), ElementsAre(0xE4E4E4E4u, 0xE4E4E4E4u));
  EXPECT_THAT(first_column(3, 8), ElementsAre(0x88FAC688u, 0xC688FAC6u, 0xFAC688FAu));
  EXPECT_THAT(first_column(4, 8), ElementsAre(0x76543210u, 0x76543210u, 0x76543210u, 0x76543210u));
}

TEST(GptqTest, ZeroPointsAreStoredLessOneInV1) {
  const std::map<int, std::vector<uint32_t>> v1 = {{2, {0x55555555u}},
                                                   {3, {0xDB6DB6DBu, 0xB6DB6DB6u, 0x6DB6DB6Du}},
                                                   {4, {0x77777777u}},
                                                   {8, {0x7F7F7F7Fu}}};
  const std::map<int, std::vector<uint32_t>> v2 = {{2, {0xAAAAAAAAu}},
                                                   {3, {0x24924924u, 0x49249249u, 0x92492492u}},
                                                   {4, {0x88888888u}},
                                                   {8, {0x80808080u}}};
  for (const auto& [bits, expected] : v1) {
    const GridFormat& format = *GridFormat::Find(bits, 32, true);
    const Linear linear =
        Encoded(format, Codes(32, 64, 2, [](int64_t, int64_t) { return 1; }), DType::kF16);
    std::string made;
    LWQ_ASSERT_OK_AND_ASSIGN(TensorView zeros,
                             GptqCoding().Tensor("m.qzeros", linear.stored, made));
    EXPECT_THAT(zeros.shape, ElementsAre(2, bits));
    std::vector<uint32_t> words = Words(zeros.bytes);
    for (size_t i = 0; i < words.size(); ++i) EXPECT_EQ(words[i], expected[i % expected.size()]);
    LWQ_ASSERT_OK_AND_ASSIGN(zeros, GptqV2Coding().Tensor("m.qzeros", linear.stored, made));
    words = Words(zeros.bytes);
    for (size_t i = 0; i < words.size(); ++i) {
      EXPECT_EQ(words[i], v2.at(bits)[i % expected.size()]) << bits;
    }
  }
}

TEST(GptqTest, ScalesAreF16ByGroupAndTheOrderIsThatOfTheInputs) {
  const GridFormat& format = *GridFormat::Find(4, 32, true);
  const Linear linear =
      Encoded(format, Codes(32, 64, 2, [](int64_t, int64_t) { return 1; }), DType::kBF16);
  std::string made;
  LWQ_ASSERT_OK_AND_ASSIGN(TensorView scales, GptqCoding().Tensor("m.scales", linear.stored, made));
  EXPECT_EQ(scales.dtype, DType::kF16);
  EXPECT_THAT(scales.shape, ElementsAre(2, 32));
  const auto half = [&](int i) { return scales.bytes[2 * i] | scales.bytes[2 * i + 1] << 8; };
  EXPECT_EQ(half(0), 0x3800);   // 0.5
  EXPECT_EQ(half(1), 0x3C00);   // 1
  EXPECT_EQ(half(32), 0xB400);  // -0.25, the second group of output 0
  LWQ_ASSERT_OK_AND_ASSIGN(TensorView order, GptqCoding().Tensor("m.g_idx", linear.stored, made));
  EXPECT_THAT(order.shape, ElementsAre(64));
  const std::vector<uint32_t> groups = Words(order.bytes);
  EXPECT_EQ(groups[31], 0u);
  EXPECT_EQ(groups[32], 1u);
}

TEST(GptqTest, WhatIsWrittenIsReadToTheBit) {
  for (const LinearCoding* coding : {&GptqCoding(), &GptqV2Coding()}) {
    for (const int bits : {2, 3, 4, 8}) {
      const GridFormat& format = *GridFormat::Find(bits, 32, true);
      const Linear linear = Encoded(
          format,
          Codes(64, 96, 3,
                [&](int64_t n, int64_t k) { return (7 * n + 5 * k + n * k) % (1 << bits); }),
          DType::kF16);
      Tensors tensors(*coding, linear.stored);
      LWQ_ASSERT_OK_AND_ASSIGN(const OwnedLinear read, tensors.Read({&format}));
      EXPECT_EQ(read.linear.format, &format);
      ASSERT_EQ(read.linear.parts.size(), 2u);
      for (size_t i = 0; i < 2; ++i) {
        EXPECT_EQ(read.linear.parts[i].shape, linear.stored.parts[i].shape);
        EXPECT_EQ(read.linear.parts[i].bytes, linear.stored.parts[i].bytes) << bits;
      }
    }
  }
}

TEST(GptqTest, ZeroPointsOfOtherToolsAreRead) {
  const GridFormat& symmetric = *GridFormat::Find(4, 32, true);
  const GridFormat& affine = *GridFormat::Find(4, 32, false);
  const Linear linear =
      Encoded(symmetric, Codes(32, 32, 1, [](int64_t, int64_t k) { return k % 16; }), DType::kF16);
  Tensors tensors(GptqCoding(), linear.stored);
  tensors.Bytes("m.qzeros")[0] = '\x70';  // of output 0: 1, of output 1: 8
  LWQ_ASSERT_OK_AND_ASSIGN(OwnedLinear read, tensors.Read({&affine}));
  Matrix weight(32, 32);
  // One group a row counts as the row.
  EXPECT_EQ(read.linear.format, GridFormat::Find(4, 0, false));
  ASSERT_OK(DequantizeLinear("m", read.linear, weight.view()));
  EXPECT_EQ(weight.Row(0)[3], 0.5f * (3 - 1));
  EXPECT_EQ(weight.Row(1)[3], 1.0f * (3 - 8));
  EXPECT_THAT(tensors.Read({&symmetric}), FailsWith("CONFIG_MISMATCH", HasSubstr("zero points")));
  // 15 less one more: 0 to some, 16 to others.
  tensors.Bytes("m.qzeros")[0] = '\x7F';
  EXPECT_THAT(tensors.Read({&affine}), FailsWith("QUANT_FORMAT_UNSUPPORTED", HasSubstr("16")));
}

// Rows of the whole are what is read of them alone, and no more words are copied than they need.
TEST(GptqTest, SomeRowsAreReadWithoutTheOthers) {
  for (const bool symmetric : {true, false}) {
    for (const int bits : {2, 3, 4, 8}) {
      const GridFormat& written = *GridFormat::Find(bits, 32, true);
      const Linear linear = Encoded(
          written,
          Codes(128, 96, 3,
                [&](int64_t n, int64_t k) { return (7 * n + 5 * k + n * k) % (1 << bits); }),
          DType::kF16);
      Tensors tensors(GptqV2Coding(), linear.stored);
      if (!symmetric) {
        std::string& zeros = tensors.Bytes("m.qzeros");
        for (size_t i = 0; i < zeros.size(); ++i) zeros[i] = static_cast<char>(37 * i + i / 5);
      }
      const WeightFormat* format = GridFormat::Find(bits, 32, symmetric);
      LWQ_ASSERT_OK_AND_ASSIGN(const FoundLinear found, tensors.Find({format}));
      LWQ_ASSERT_OK_AND_ASSIGN(const OwnedLinear whole, tensors.Read({format}));
      Matrix all(128, 96);
      ASSERT_OK(DequantizeLinear("m", whole.linear, all.view()));
      for (const auto& [first, rows] : {std::pair(0, 128), {0, 1}, {31, 2}, {69, 3}, {64, 64}}) {
        LWQ_ASSERT_OK_AND_ASSIGN(const OwnedLinear part,
                                 GptqV2Coding().ReadRows("m", found, first, rows));
        EXPECT_LE(part.linear.out_features, rows + 62);
        Matrix some(rows, 96);
        ASSERT_OK(format->Dequantize("m", part.linear.parts, first - part.first_row, some.view()));
        EXPECT_EQ(std::memcmp(some.data(), all.Row(first), sizeof(float) * some.size()), 0)
            << bits << " bits, rows from " << first;
      }
    }
  }
}

TEST(GptqTest, WhatDoesNotFitTogetherIsRefused) {
  const GridFormat& format = *GridFormat::Find(4, 32, true);
  const Linear linear =
      Encoded(format, Codes(64, 64, 2, [](int64_t, int64_t k) { return k % 16; }), DType::kF16);
  ASSERT_OK(Tensors(GptqCoding(), linear.stored).Read({&format}));
  // `named`: the tensor that does not fit any more.
  const auto damaged = [&](const std::string& name, DType dtype, std::vector<int64_t> shape,
                           const std::string& named = "") {
    Tensors tensors(GptqCoding(), linear.stored);
    tensors[name].dtype = dtype;
    tensors[name].shape = std::move(shape);
    EXPECT_THAT(tensors.Read({&format}),
                FailsWith("PACKED_SHAPE", HasSubstr(named.empty() ? name : named)))
        << name;
  };
  damaged("m.qweight", DType::kF32, {8, 64});
  damaged("m.qweight", DType::kI32, {512});
  damaged("m.qweight", DType::kI32, {16, 32}, "m.scales");
  damaged("m.qweight", DType::kI32, {7, 64});
  damaged("m.qzeros", DType::kI32, {1, 16});
  damaged("m.qzeros", DType::kI32, {2, 18});
  damaged("m.scales", DType::kI32, {2, 64});
  damaged("m.scales", DType::kF16, {3, 64}, "m.qzeros");
  damaged("m.g_idx", DType::kI32, {32});
  Tensors missing(GptqCoding(), linear.stored);
  missing.Erase("m.scales");
  EXPECT_THAT(missing.Read({&format}), FailsWith("TENSOR_MISSING", HasSubstr("m.scales")));
  Tensors unordered(GptqCoding(), linear.stored);
  unordered.Erase("m.g_idx");
  EXPECT_OK(unordered.Read({&format})) << "an order that is not stored is that of the inputs";
  EXPECT_THAT(unordered.Read({GridFormat::Find(4, 64, true)}),
              FailsWith("CONFIG_MISMATCH", HasSubstr("is stored")));
}

// In activation order the codes lie as the inputs do, and g_idx says each one's group: here the
// even inputs are the first group. What is read has the groups one after the other, and says which
// input each is.
TEST(GptqTest, ActivationOrderIsReadGroupByGroup) {
  const GridFormat& format = *GridFormat::Find(3, 32, true);
  const auto code = [](int64_t n, int64_t k) { return (n + 5 * k) % 8; };
  const Linear linear = Encoded(format, Codes(32, 64, 2, code), DType::kF16);
  Tensors tensors(GptqCoding(), linear.stored);
  for (size_t k = 0; k < 64; ++k) {
    const int32_t group = k % 2 == 0 ? 0 : 1;
    std::memcpy(tensors.Bytes("m.g_idx").data() + 4 * k, &group, 4);
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const FoundLinear found, tensors.Find({&format}));
  ASSERT_EQ(found.input_order.size(), 64u);
  LWQ_ASSERT_OK_AND_ASSIGN(const OwnedLinear owned, GptqCoding().Read("m", found));
  LWQ_ASSERT_OK_AND_ASSIGN(const GridCodes read, format.Decode("m", owned.linear));
  for (int64_t j = 0; j < 64; ++j) {
    const int64_t input = j < 32 ? 2 * j : 2 * (j - 32) + 1;
    EXPECT_EQ(found.input_order[static_cast<size_t>(j)], input);
    for (int64_t n = 0; n < 32; ++n) {
      EXPECT_EQ(read.codes[static_cast<size_t>(n * 64 + j)], code(n, input)) << n << " " << j;
    }
  }
}

TEST(GptqTest, GroupsOfUnequalSizesAreRefused) {
  const GridFormat& format = *GridFormat::Find(4, 32, true);
  const Linear linear =
      Encoded(format, Codes(32, 64, 2, [](int64_t, int64_t) { return 1; }), DType::kF16);
  const auto refused = [&](size_t input, int32_t group, const char* what) {
    Tensors tensors(GptqCoding(), linear.stored);
    std::memcpy(tensors.Bytes("m.g_idx").data() + 4 * input, &group, 4);
    EXPECT_THAT(tensors.Read({&format}), FailsWith("QUANT_FORMAT_UNSUPPORTED", HasSubstr(what)));
  };
  refused(31, 1, "group 1 for input 63");  // the second group has one too many
  refused(5, 2, "group 2 for input 5");
  refused(5, -1, "group -1 for input 5");
}

TEST(GptqTest, WhatItCannotHoldIsNotWritten) {
  std::string made;
  const GridFormat& affine = *GridFormat::Find(4, 0, false);
  GridCodes codes = Codes(32, 32, 1, [](int64_t, int64_t) { return 1; });
  codes.zeros = Matrix(32, 1);
  std::fill_n(codes.zeros.data(), codes.zeros.size(), 0.0f);
  const Linear asymmetric = Encoded(affine, codes, DType::kF16);
  EXPECT_THAT(GptqCoding().Tensor("m.qweight", asymmetric.stored, made),
              FailsWith("NOT_PACKABLE", HasSubstr("zero points")));
  // 2^-30 is a BF16 number, and none of F16.
  codes.scales.Row(3)[0] = 0x1p-30f;
  const GridFormat& symmetric = *GridFormat::Find(4, 0, true);
  const Linear tiny = Encoded(symmetric, codes, DType::kBF16);
  EXPECT_THAT(GptqCoding().Tensor("m.scales", tiny.stored, made),
              FailsWith("NOT_PACKABLE", HasSubstr("not exact in F16")));
}

}  // namespace
}  // namespace lwq

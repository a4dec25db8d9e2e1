#include "worker/engine/plan/menu.h"

#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/plan/llama_inventory.h"
#include "worker/engine/plan/artifact_format.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Ids(const UnitMenu& unit) {
  std::vector<std::string> ids;
  for (const WeightFormat* format : unit.formats) ids.push_back(format->id());
  return ids;
}

// SmolLM2-135M's shape: 576 inputs are no multiple of 128, 1536 are.
ModelInventory Small() {
  return testing::LlamaInventory(
      {.layers = 2, .hidden = 576, .intermediate = 1536, .heads = 9, .kv_heads = 3, .vocab = 320});
}

const ProfileDef& Profile(absl::string_view name) { return **FindProfile(name); }

TEST(MenuTest, ByDefaultAUnitMayTakeWhatTheProfileHasAndStayDense) {
  const ModelInventory model = testing::LlamaInventory({});
  LWQ_ASSERT_OK_AND_ASSIGN(const Menu menu, BuildMenu(model, Profile("vllm-lowbit"), {}));
  EXPECT_THAT(menu.rungs,
              ElementsAre("2-bit in groups of 128", "3-bit in groups of 128",
                          "4-bit in groups of 128", "8-bit in groups of 128", "as in the source"));
  ASSERT_EQ(menu.units.size(), model.units.size());
  for (const UnitMenu& unit : menu.units) {
    EXPECT_THAT(Ids(unit),
                ElementsAre("int2-g128", "int3-g128", "int4-g128", "int8-g128", "dense"));
    EXPECT_THAT(unit.at_rung, ElementsAre(0, 1, 2, 3, 4));
    EXPECT_TRUE(unit.Quantizable());
  }
  EXPECT_TRUE(menu.notes.empty());
}

TEST(MenuTest, LinearsMultipliedIn8BitsHaveProfilesOfTheirOwn) {
  const ModelInventory model = testing::LlamaInventory({.tied = false});
  LWQ_ASSERT_OK_AND_ASSIGN(const Menu menu,
                           BuildMenu(model, Profile("w8a8"), {.quantize_head = true}));
  EXPECT_THAT(Ids(menu.units[0]), ElementsAre("int8-row-a8", "dense"));
  EXPECT_THAT(Ids(menu.units.back()), ElementsAre("dense"));
  EXPECT_THAT(menu.notes, ElementsAre(HasSubstr("lm_head stays as in the source: engines do not")));
  LWQ_ASSERT_OK_AND_ASSIGN(const Menu fp8, BuildMenu(model, Profile("fp8"), {}));
  EXPECT_THAT(Ids(fp8.units[0]), ElementsAre("fp8-row-a8", "dense"));
  LWQ_ASSERT_OK_AND_ASSIGN(const Menu both, BuildMenu(model, Profile("w8a8"),
                                                      {.formats = {"fp8-row-a8", "int8-row-a8"}}));
  EXPECT_EQ(both.units[0].formats.size(), 2u);
  for (const char* profile : {"portable", "llama.cpp", "gptq"}) {
    EXPECT_THAT(BuildMenu(model, Profile(profile), {.formats = {"int8-row-a8"}}),
                FailsWith("FORMAT_UNSUPPORTED", HasSubstr("int8-row-a8")));
  }
  EXPECT_THAT(BuildMenu(model, Profile("w8a8"), {.formats = {"gguf-q4_k"}}),
              FailsWith("FORMAT_UNSUPPORTED", HasSubstr("it accepts int8-row-a8, dense")));
  EXPECT_THAT(BuildMenu(model, Profile("w8a8"), {.formats = {"int8"}}),
              FailsWith("FORMAT_UNSUPPORTED", HasSubstr("it accepts int8-row-a8, dense")));
}

TEST(MenuTest, WhereAGroupSizeDoesNotDivideTheNextSmallerDoes) {
  const ModelInventory model = Small();
  LWQ_ASSERT_OK_AND_ASSIGN(const Menu menu,
                           BuildMenu(model, Profile("portable"), {.formats = {"int4", "int8"}}));
  EXPECT_THAT(Ids(menu.units[0]), ElementsAre("int4-g64", "int8-g64"));    // qkv: 576 inputs
  EXPECT_THAT(Ids(menu.units[3]), ElementsAre("int4-g128", "int8-g128"));  // down: 1536 inputs
  EXPECT_THAT(menu.rungs, ElementsAre("4-bit in groups of 128", "8-bit in groups of 128"));
}

TEST(MenuTest, SeveralGroupSizesAreChoicesOfEachWidth) {
  LWQ_ASSERT_OK_AND_ASSIGN(const Menu menu,
                           BuildMenu(Small(), Profile("vllm-lowbit"),
                                     {.formats = {"int2", "int3"}, .group_sizes = {128, 32}}));
  EXPECT_THAT(Ids(menu.units[0]), ElementsAre("int2-g64", "int2-g32", "int3-g64", "int3-g32"));
  EXPECT_THAT(Ids(menu.units[3]), ElementsAre("int2-g128", "int2-g32", "int3-g128", "int3-g32"));
  EXPECT_EQ(menu.rungs.size(), 4u);
}

TEST(MenuTest, AUnitThatNoFormatAcceptsStaysDenseAndIsSaid) {
  ModelInventory model = testing::LlamaInventory({});
  model.units[1].linears[0].out_features = 250;  // no multiple of 32
  LWQ_ASSERT_OK_AND_ASSIGN(const Menu menu,
                           BuildMenu(model, Profile("portable"), {.formats = {"int4", "int8"}}));
  EXPECT_THAT(Ids(menu.units[1]), ElementsAre("dense"));
  EXPECT_THAT(menu.units[1].at_rung, ElementsAre(0, 0));
  EXPECT_FALSE(menu.units[1].Quantizable());
  EXPECT_THAT(menu.notes, ElementsAre(AllOf(HasSubstr("layers.0.self_attn.o_proj stays"),
                                            HasSubstr("[250, 256]"), HasSubstr("32"))));
}

TEST(MenuTest, TheHeadTakesPartOnRequestOnly) {
  const ModelInventory model = testing::LlamaInventory({.tied = false});
  LWQ_ASSERT_OK_AND_ASSIGN(const Menu menu,
                           BuildMenu(model, Profile("portable"), {.formats = {"int4", "int8"}}));
  EXPECT_THAT(Ids(menu.units.back()), ElementsAre("dense"));
  EXPECT_TRUE(menu.notes.empty());
  LWQ_ASSERT_OK_AND_ASSIGN(
      const Menu asked,
      BuildMenu(model, Profile("portable"), {.formats = {"int4", "int8"}, .quantize_head = true}));
  EXPECT_THAT(Ids(asked.units.back()), ElementsAre("int4-g128", "int8-g128"));
}

TEST(MenuTest, FormatsByIdAreTakenAsTheyAre) {
  LWQ_ASSERT_OK_AND_ASSIGN(
      const Menu menu, BuildMenu(testing::LlamaInventory({}), Profile("vllm-lowbit"),
                                 {.formats = {"int3-row", "int4-g32-asym", "dense", "int3-row"}}));
  EXPECT_THAT(Ids(menu.units[0]), ElementsAre("int3-row", "int4-g32-asym", "dense"));
  EXPECT_EQ(menu.rungs.size(), 3u);
}

// vLLM opens these; docs/formats/compressed_tensors.md.
TEST(MenuTest, WithZeroPointsThereAreFourAndEightBits) {
  LWQ_ASSERT_OK_AND_ASSIGN(
      const Menu menu,
      BuildMenu(testing::LlamaInventory({}), Profile("vllm-lowbit"), {.symmetric = false}));
  EXPECT_THAT(Ids(menu.units[0]), ElementsAre("int4-g128-asym", "int8-g128-asym", "dense"));
}

// One key-value head of 80 channels: only k and v are refused, and the first rung is dense.
TEST(MenuTest, SaysWhichLinearKeepsAUnitDense) {
  ModelInventory model = testing::LlamaInventory({});
  model.units[0].linears[1].in_features = 80;
  LWQ_ASSERT_OK_AND_ASSIGN(
      const Menu menu, BuildMenu(model, Profile("portable"), {.formats = {"dense", "int4-g128"}}));
  ASSERT_EQ(menu.notes.size(), 1u);
  EXPECT_THAT(menu.notes[0], AllOf(HasSubstr("layers.0.self_attn.qkv_proj stays"),
                                   HasSubstr("k_proj: "), HasSubstr("80")));
}

TEST(MenuTest, RefusesWhatTheProfileLacks) {
  const ModelInventory model = testing::LlamaInventory({});
  const ProfileDef& portable = Profile("portable");
  EXPECT_THAT(
      BuildMenu(model, portable, {.formats = {"int3"}}),
      FailsWith("FORMAT_UNSUPPORTED", AllOf(HasSubstr("\"int3\""), HasSubstr("int4, int8"))));
  EXPECT_THAT(BuildMenu(model, portable, {.formats = {"int4"}, .symmetric = false}),
              FailsWith("FORMAT_UNSUPPORTED", HasSubstr("leave out --asymmetric")));
  EXPECT_THAT(BuildMenu(model, Profile("transformers"), {.formats = {"int4-g128-asym"}}),
              FailsWith("FORMAT_UNSUPPORTED", HasSubstr("zero points")));
  EXPECT_THAT(
      BuildMenu(model, Profile("vllm-lowbit"), {.formats = {"int3-g128-asym"}}),
      FailsWith("FORMAT_UNSUPPORTED", AllOf(HasSubstr("asymmetric"), HasSubstr("int4, int8"))));
  EXPECT_THAT(BuildMenu(model, portable, {.formats = {"int4"}, .group_sizes = {96}}),
              FailsWith("GROUP_SIZE", AllOf(HasSubstr("96"), HasSubstr("row (0)"))));
  for (const char* unknown : {"int", "int9", "int4-g0", "int04", "q4_k", "int4-g128-sym", ""}) {
    EXPECT_THAT(BuildMenu(model, portable, {.formats = {unknown}}),
                FailsWith("FORMAT_UNKNOWN", HasSubstr("int4-g128")))
        << unknown;
  }
}

// 576 inputs are no whole K-quant blocks: the types of 32 values stand in, one for each rung.
TEST(MenuTest, OfLlamaCppHasItsTypesForTheEmbeddingAndTheHeadToo) {
  ModelInventory model = testing::LlamaInventory({.layers = 1,
                                                  .hidden = 576,
                                                  .intermediate = 1536,
                                                  .heads = 9,
                                                  .kv_heads = 3,
                                                  .vocab = 320,
                                                  .tied = false});
  model = PlannedAs(ArtifactFormatDefs::gguf, std::move(model));
  LWQ_ASSERT_OK_AND_ASSIGN(const Menu menu, BuildMenu(model, Profile("llama.cpp"), {}));
  EXPECT_THAT(menu.rungs, ElementsAre("IQ2_XXS", "IQ2_S", "IQ3_S", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K",
                                      "Q8_0", "as in the source"));
  const auto fallback =
      ElementsAre("gguf-iq4_nl", "gguf-q4_1", "gguf-q5_0", "gguf-q5_1", "gguf-q8_0", "dense");
  EXPECT_THAT(Ids(menu.units.front()), fallback);  // the embedding
  EXPECT_THAT(Ids(menu.units.back()), fallback);   // the head, without being asked for
  EXPECT_THAT(Ids(menu.units[7]),
              ElementsAre("gguf-iq2_xxs", "gguf-iq2_s", "gguf-iq3_s", "gguf-iq4_xs", "gguf-q4_k",
                          "gguf-q5_k", "gguf-q6_k", "gguf-q8_0", "dense"));  // down: 1536 inputs
  EXPECT_THAT(menu.units.front().at_rung, ElementsAre(0, 0, 0, 0, 1, 2, 3, 4, 5));
}

TEST(MenuTest, GridsAndBlocksAreOfTheProfilesThatHaveThem) {
  const ModelInventory model = testing::LlamaInventory({});
  EXPECT_THAT(BuildMenu(model, Profile("llama.cpp"), {.formats = {"int4"}}),
              FailsWith("FORMAT_UNSUPPORTED", HasSubstr("gguf-q4_k")));
  EXPECT_THAT(BuildMenu(model, Profile("portable"), {.formats = {"gguf-q4_k"}}),
              FailsWith("FORMAT_UNSUPPORTED", HasSubstr("int4, int8, dense")));
  LWQ_ASSERT_OK_AND_ASSIGN(
      const Menu menu, BuildMenu(model, Profile("llama.cpp"), {.formats = {"gguf-q5_1", "dense"}}));
  EXPECT_THAT(Ids(menu.units[0]), ElementsAre("gguf-q5_1", "dense"));
}

}  // namespace
}  // namespace lwq

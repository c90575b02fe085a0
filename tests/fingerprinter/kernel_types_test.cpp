// The promise under test: BTF gives the offsets of members, also through aliases, members of
// members and members without a name; what is no BTF is kCorrupt, and what is not there is none.

#include "fingerprinter/kernel_types.h"

#include <gtest/gtest.h>

#include "tests/fingerprinter/made_guest.h"

namespace samepage::fingerprinter {
namespace {

std::vector<std::byte> example() {
  BtfWriter types;
  const auto word = types.integer("long", 8);
  const auto inner = types.structure("inner", 16, {{"first", word, 0}, {"second", word, 8}});
  const auto alias = types.alias("inner_t", inner);
  const auto nameless = types.one_of({{"x", word, 0}, {"", inner, 8}});
  types.structure("outer", 64, {{"a", word, 0}, {"b", alias, 8}, {"", nameless, 32}});
  types.enumeration("colours", {{"RED", 1}, {"BLUE", 7}});
  return types.bytes();
}

TEST(KernelTypesTest, FindsMembers) {
  const auto bytes = example();
  const KernelTypes types = KernelTypes::parse(bytes).value();

  EXPECT_EQ(types.size_of("outer"), 64U);
  EXPECT_EQ(types.offset_of("outer", "a"), 0U);
  EXPECT_EQ(types.offset_of("outer", "b.second"), 16U);
  EXPECT_EQ(types.offset_of("outer", "x"), 32U);
  EXPECT_EQ(types.offset_of("outer", "second"), 48U);
  EXPECT_EQ(types.offset_of("outer", "c"), std::nullopt);
  EXPECT_EQ(types.offset_of("outer", "a.b"), std::nullopt);
  EXPECT_EQ(types.offset_of("nobody", "a"), std::nullopt);
  EXPECT_EQ(types.size_of("nobody"), std::nullopt);
  EXPECT_EQ(types.enumerator("colours", "BLUE"), 7U);
  EXPECT_EQ(types.enumerator("colours", "GREEN"), std::nullopt);
}

TEST(KernelTypesTest, RefusesWhatIsCutOff) {
  const auto bytes = example();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(KernelTypes::parse(std::span(bytes).first(size)).error().code(), Errc::kCorrupt);
  }
}

TEST(KernelTypesTest, EndsOnStructuresThatHoldThemselves) {
  BtfWriter types;
  std::vector<BtfWriter::Member> members(60, {.name = "", .type = 1, .byte = 0});
  types.structure("endless", 8, members);
  const auto bytes = types.bytes();

  EXPECT_EQ(KernelTypes::parse(bytes)->offset_of("endless", "x"), std::nullopt);
}

}  // namespace
}  // namespace samepage::fingerprinter

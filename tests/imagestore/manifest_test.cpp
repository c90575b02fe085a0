// The promises under test: what was set is found, in trees of every height; versions share the
// nodes in which they agree; equal contents have equal names; no damaged node is believed.

#include "imagestore/manifest.h"

#include <algorithm>
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "tests/fakes/fake_origin.h"
#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {
namespace {

using Pages = std::map<std::uint64_t, PageDigest>;

PageDigest digest_of(std::uint64_t number) {
  StreamMac mac(DigestKey{});
  mac.update(std::as_bytes(std::span(&number, 1)));
  return mac.current();
}

/// A page and a place for it.
PageRef ref_of(const PageDigest& digest) {
  const auto first = std::to_integer<std::uint64_t>(digest.bytes[0]);
  return {.digest = digest,
          .place = {.extent = digest_of(1'000'000 + first % 8),
                    .slot = std::to_integer<std::uint32_t>(digest.bytes[1]) % 32}};
}

std::optional<PageRef> ref_of(const std::optional<PageDigest>& digest) {
  return digest ? std::optional(ref_of(*digest)) : std::nullopt;
}

class ManifestTest : public ::testing::Test {
 protected:
  VersionId build(std::uint64_t size_bytes, const Pages& pages) {
    ManifestBuilder builder(origin_, keys_, size_bytes);
    for (const auto& [page, digest] : pages) EXPECT_TRUE(builder.set(page, ref_of(digest)));
    return builder.finish().value();
  }

  VersionId build_on(const VersionId& base, std::uint64_t size_bytes,
                     const std::map<std::uint64_t, std::optional<PageDigest>>& changes) {
    auto builder = ManifestBuilder::on_top_of(open(base), size_bytes).value();
    for (const auto& [page, digest] : changes) EXPECT_TRUE(builder.set(page, ref_of(digest)));
    return builder.finish().value();
  }

  Manifest open(const VersionId& version) {
    return Manifest::open(origin_, keys_, version).value();
  }

  Pages walk(const VersionId& version) {
    Pages found;
    EXPECT_TRUE(open(version).walk([](const ObjectName&) { return true; },
                                   [&](std::uint64_t page, const PageRef& ref) {
                                     EXPECT_TRUE(found.empty() || found.rbegin()->first < page);
                                     EXPECT_EQ(ref.place, ref_of(ref.digest).place);
                                     found[page] = ref.digest;
                                     return Result<void>();
                                   }));
    return found;
  }

  fakes::FakeOrigin origin_;
  DomainKeys keys_{DigestKey{}};
};

TEST_F(ManifestTest, FindsWhatWasSetInTreesOfEveryHeight) {
  std::mt19937_64 random(test_seed());
  for (const std::uint64_t size :
       {std::uint64_t{1}, std::uint64_t{1} << 20U, (std::uint64_t{1} << 20U) + 1,
        std::uint64_t{5} << 30U, std::uint64_t{3} << 40U, kImageBytesMax}) {
    Pages pages;
    pages[pages_in(size) - 1] = digest_of(7);
    for (int i = 0; i < 50; ++i) pages[random() % pages_in(size)] = digest_of(random());

    const VersionId version = build(size, pages);

    EXPECT_EQ(walk(version), pages) << size;
    Manifest manifest = open(version);
    EXPECT_EQ(manifest.size_bytes(), size);
    for (const auto& [page, digest] : pages) {
      const auto found = manifest.find(page).value();
      ASSERT_TRUE(found);
      EXPECT_EQ(found->digest, digest);
      EXPECT_EQ(found->place, ref_of(digest).place);
    }
    for (int i = 0; i < 50; ++i) {
      const std::uint64_t page = random() % pages_in(size);
      EXPECT_EQ(manifest.find(page).value().has_value(), pages.contains(page));
    }
  }
}

TEST_F(ManifestTest, AnImageOfZerosIsOneObject) {
  const VersionId version = build(std::uint64_t{1} << 40U, {});
  EXPECT_EQ(origin_.objects.size(), 1U);
  EXPECT_FALSE(open(version).find(12345).value());
  EXPECT_EQ(open(build(0, {})).pages(), 0U);
}

TEST_F(ManifestTest, EqualContentsHaveEqualNamesHoweverTheyWereBuilt) {
  std::mt19937_64 random(test_seed());
  for (int round = 0; round < 30; ++round) {
    const std::uint64_t base_size = 1 + random() % (std::uint64_t{1} << (12 + random() % 30));
    const std::uint64_t growth = round % 3 == 0 ? 0 : random() % (base_size * 600);
    const std::uint64_t size = std::min(base_size + growth, kImageBytesMax);
    Pages pages;
    for (int i = 0; i < 40; ++i) pages[random() % pages_in(base_size)] = digest_of(random());
    const VersionId base = build(base_size, pages);
    std::map<std::uint64_t, std::optional<PageDigest>> changes;
    for (int i = 0; i < 20; ++i) changes[random() % pages_in(size)] = digest_of(random());
    for (const auto& [page, digest] : pages) {
      if (random() % 3 == 0) changes[page] = std::nullopt;
    }

    const VersionId changed = build_on(base, size, changes);

    for (const auto& [page, digest] : changes) {
      if (digest) {
        pages[page] = *digest;
      } else {
        pages.erase(page);
      }
    }
    EXPECT_EQ(walk(changed), pages);
    EXPECT_EQ(changed, build(size, pages)) << base_size << " grown to " << size;
  }
}

TEST_F(ManifestTest, AChangeStoresOnlyTheNodesAboveIt) {
  Pages pages;
  for (std::uint64_t page = 0; page < 100'000; page += 100) pages[page] = digest_of(page);
  const VersionId base = build(std::uint64_t{1} << 34U, pages);
  const std::size_t before = origin_.objects.size();

  build_on(base, std::uint64_t{1} << 34U, {{70'007, digest_of(1)}});

  EXPECT_EQ(origin_.objects.size(), before + 4);  // A node a level, and the version.
}

TEST_F(ManifestTest, NothingChangedIsTheSameVersion) {
  const VersionId base = build(std::uint64_t{1} << 34U, {{5, digest_of(5)}});
  EXPECT_EQ(build_on(base, std::uint64_t{1} << 34U, {}), base);
}

TEST_F(ManifestTest, AnImageDoesNotShrink) {
  const VersionId base = build(8192, {});
  EXPECT_EQ(ManifestBuilder::on_top_of(open(base), 4096).error().code(), Errc::kInvalid);
}

TEST_F(ManifestTest, NeighboursAreFoundWithoutReadingAgain) {
  const VersionId version = build(std::uint64_t{1} << 34U, {{5, digest_of(5)}, {6, digest_of(6)}});
  Manifest manifest = open(version);
  ASSERT_TRUE(manifest.find(5));
  const int gets = origin_.gets;
  ASSERT_TRUE(manifest.find(6));
  ASSERT_TRUE(manifest.find(200));
  EXPECT_EQ(origin_.gets, gets);
}

TEST_F(ManifestTest, AMissingVersionIsNotFound) {
  EXPECT_EQ(Manifest::open(origin_, keys_, digest_of(1)).error().code(), Errc::kNotFound);
}

TEST_F(ManifestTest, EveryFlippedByteOfANodeOrVersionIsNoticed) {
  const VersionId version =
      build(std::uint64_t{1} << 22U, {{5, digest_of(5)}, {700, digest_of(6)}});
  for (auto& [name, bytes] : origin_.objects) {
    for (std::byte& byte : bytes) {
      byte ^= std::byte{0x40};
      auto manifest = Manifest::open(origin_, keys_, version);
      const bool noticed = !manifest || !manifest->find(5) || !manifest->find(700);
      EXPECT_TRUE(noticed);
      byte ^= std::byte{0x40};
    }
  }
}

TEST_F(ManifestTest, AMissingNodeIsCorruptAndNamed) {
  const VersionId version = build(4096, {{0, digest_of(5)}});
  std::erase_if(origin_.objects, [&](const auto& object) { return object.first != version; });
  const auto found = open(version).find(0);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code(), Errc::kCorrupt);
  EXPECT_NE(found.error().message().find("manifest node"), std::string::npos);
}

TEST_F(ManifestTest, TheSamePagesHaveTheSameNameWhereverTheyLie) {
  ManifestNode here;
  ManifestNode there;
  for (std::size_t i = 0; i < 100; ++i) {
    here.set_page(i, PageRef{digest_of(i), {digest_of(500), 3}});
    there.set_page(i, PageRef{digest_of(i), {digest_of(600 + i), 4}});
  }
  EXPECT_NE(here.encode(keys_), there.encode(keys_));
  EXPECT_EQ(name_node(here.encode(keys_), keys_).value(),
            name_node(there.encode(keys_), keys_).value());
  EXPECT_EQ(here.extents().size(), 1U);
  EXPECT_EQ(there.extents().size(), 100U);
}

TEST_F(ManifestTest, DiffVisitsWhatDiffersAndReadsNothingElse) {
  std::mt19937_64 random(test_seed());
  for (int round = 0; round < 40; ++round) {
    const std::uint64_t base_size = 1 + random() % (std::uint64_t{1} << (12 + random() % 28));
    const std::uint64_t size = base_size + (round % 3 == 0 ? 0 : random() % (base_size * 300));
    Pages pages;
    for (int i = 0; i < 40; ++i) pages[random() % pages_in(base_size)] = digest_of(random());
    const VersionId base = build(base_size, pages);
    std::map<std::uint64_t, std::optional<PageDigest>> changes;
    for (int i = 0; i < 20; ++i) changes[random() % pages_in(size)] = digest_of(random());
    for (const auto& [page, digest] : pages) {
      if (random() % 3 == 0) changes[page] = std::nullopt;
    }
    const VersionId changed = build_on(base, size, changes);

    for (const bool forward : {true, false}) {
      Manifest before = open(forward ? base : changed);
      Manifest after = open(forward ? changed : base);
      std::map<std::uint64_t, std::optional<PageDigest>> found;
      ASSERT_TRUE(Manifest::diff(before, after,
                                 [&](std::uint64_t page, const std::optional<PageRef>& was,
                                     const std::optional<PageRef>& is) -> Result<void> {
                                   EXPECT_TRUE(found.empty() || found.rbegin()->first < page);
                                   const auto& old = forward ? was : is;
                                   EXPECT_EQ(old.has_value(), pages.contains(page));
                                   EXPECT_TRUE(!old || old->digest == pages.at(page));
                                   const auto& now = forward ? is : was;
                                   found[page] = now ? std::optional(now->digest) : std::nullopt;
                                   return {};
                                 }));
      EXPECT_EQ(found, changes) << base_size << " grown to " << size;
    }
  }
  Pages pages;
  for (std::uint64_t page = 0; page < 100'000; page += 100) pages[page] = digest_of(page);
  const VersionId base = build(std::uint64_t{1} << 34U, pages);
  const VersionId changed = build_on(base, std::uint64_t{1} << 34U, {{70'007, digest_of(1)}});
  Manifest before = open(base);
  Manifest after = open(changed);
  const int gets = origin_.gets;
  ASSERT_TRUE(
      Manifest::diff(before, after, [](auto, const auto&, const auto&) { return Result<void>(); }));
  EXPECT_EQ(origin_.gets, gets + 6) << "a node a level, of both";
}

TEST_F(ManifestTest, ForgedNodesAreRefusedInParsing) {
  std::mt19937_64 random(test_seed());
  ManifestNode node(1);
  for (std::size_t i = 0; i < kFanOut; i += 3) node.set(i, digest_of(i));
  const auto good = node.encode(keys_);
  ASSERT_TRUE(ManifestNode::decode(good, keys_, 1));
  EXPECT_FALSE(ManifestNode::decode(good, keys_, 0));
  EXPECT_FALSE(ManifestNode::decode(ManifestNode(1).encode(keys_), keys_, 1)) << "empty";
  EXPECT_FALSE(ManifestNode::decode(good, DomainKeys(DigestKey{{std::byte{1}}}), 1));
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(ManifestNode::decode(std::span(good).first(size), keys_, 1));
  }
  for (int i = 0; i < 20'000; ++i) {
    auto bad = good;
    for (int flips = 0; flips < 3; ++flips) bad[random() % 50] = static_cast<std::byte>(random());
    bad.resize(bad.size() - random() % 3);
    const auto decoded = ManifestNode::decode(bad, keys_, 1);
    EXPECT_TRUE(!decoded || decoded->encode(keys_) == bad) << "one node, one encoding";
  }
}

TEST_F(ManifestTest, ForgedLeavesAreRefusedInParsing) {
  std::mt19937_64 random(test_seed());
  ManifestNode node;
  for (std::size_t i = 0; i < kFanOut; i += 3) node.set_page(i, ref_of(digest_of(i)));
  const auto good = node.encode(keys_);
  const ObjectName name = name_node(good, keys_).value();
  ASSERT_TRUE(ManifestNode::decode(good, keys_, 0));
  EXPECT_FALSE(ManifestNode::decode(good, keys_, 1));
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(ManifestNode::decode(std::span(good).first(size), keys_, 0));
  }
  for (int i = 0; i < 20'000; ++i) {
    auto bad = good;
    bad[random() % bad.size()] ^= static_cast<std::byte>(1U << random() % 8);
    EXPECT_FALSE(ManifestNode::decode(bad, keys_, 0)) << "the seal covers every bit";
    const auto named = name_node(bad, keys_);
    EXPECT_TRUE(!named || *named != name || !ManifestNode::decode(bad, keys_, 0));
  }
}

}  // namespace
}  // namespace samepage::imagestore

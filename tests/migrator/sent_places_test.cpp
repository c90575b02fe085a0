#include "migrator/sent_places.h"

#include <array>

#include <gtest/gtest.h>

namespace samepage::migrator {
namespace {

StreamToken page_token(std::uint64_t page, std::uint32_t block = 0) {
  StreamToken token;
  token.kind = StreamToken::Kind::kPage;
  token.header = page * kPageSize | 8U;
  token.block = block;
  return token;
}

TEST(LatestVersionsTest, KnowsWhereAPageWasSentBefore) {
  LatestVersions versions(1'000'000);

  EXPECT_EQ(versions.note(page_token(5), 100), kNowhere);
  EXPECT_EQ(versions.note(page_token(5, 1), 200), kNowhere);
  EXPECT_EQ(versions.note(page_token(5), 300'000), 100U);
  EXPECT_EQ(versions.note(page_token(5), 1'300'000), 300'000U);
  EXPECT_EQ(versions.note(page_token(5), 2'300'001), kNowhere);
}

TEST(SentContentsTest, FindsWhatWasSentInFrontOfTheBatch) {
  SentContents contents(1'000'000);
  std::array pages{SentContents::Page{.hash = {1}, .place = 10'000},
                   SentContents::Page{.hash = {2}, .place = 20'000},
                   SentContents::Page{.hash = {1}, .place = 30'000}};
  contents.note(pages, 5'000);
  for (const auto& page : pages) EXPECT_EQ(page.before, kNowhere);

  std::array again{SentContents::Page{.hash = {1}, .place = 50'000},
                   SentContents::Page{.hash = {3}, .place = 60'000}};
  contents.note(again, 45'000);
  EXPECT_EQ(again[0].before, 30'000U);
  EXPECT_EQ(again[1].before, kNowhere);

  std::array late{SentContents::Page{.hash = {2}, .place = 2'000'000}};
  contents.note(late, 1'999'000);
  EXPECT_EQ(late[0].before, kNowhere);
}

}  // namespace
}  // namespace samepage::migrator

// The promises of every origin (origin_conformance.h, kill_conformance.h), held to by DirOrigin.

#include "tests/imagestore/kill_conformance.h"
#include "tests/imagestore/origin_conformance.h"

namespace samepage::imagestore {
namespace {

class Folder final : public StorePlace {
 public:
  Result<std::unique_ptr<Origin>> open_origin(DirOrigin::Access access) override {
    return TRY(DirOrigin::open(
        {.folder = scratch_ / "store/packs", .access = access, .pack_bytes_max = 300'000}));
  }

  void damage(const ObjectName& name, std::size_t at) override {
    auto origin = open_origin(DirOrigin::Access::kRead).value();
    std::uint64_t size = 0;
    ASSERT_TRUE(origin->list([&](const StoredObject& object) -> Result<void> {
      if (object.name == name) size = object.stored_bytes;
      return {};
    }));
    ASSERT_GT(size, 0U);
    unsigned pack = 0;
    unsigned long offset = 0;
    ASSERT_EQ(std::sscanf(origin->place(name).c_str(), "pack %u at %lu", &pack, &offset), 2);
    char file[32];
    std::snprintf(file, sizeof(file), "pack-%06u", pack);
    std::fstream bytes(scratch_ / "store/packs" / file,
                       std::ios::binary | std::ios::in | std::ios::out);
    const auto place = static_cast<std::streamoff>(offset + at % size);
    bytes.seekg(place);
    const int byte = bytes.get();
    bytes.seekp(place);
    bytes.put(static_cast<char>(byte ^ (1 << (at % 8))));
  }

  ImageStore::Options store_options() override { return {.folder = scratch_ / "store"}; }

 private:
  Scratch scratch_;
};

std::unique_ptr<StorePlace> make_folder() {
  return std::make_unique<Folder>();
}

const auto kName = [](const auto& kind) { return kind.param.name; };

INSTANTIATE_TEST_SUITE_P(Dir, OriginConformance,
                         ::testing::Values(StorePlaceKind{"dir", make_folder}), kName);
INSTANTIATE_TEST_SUITE_P(Dir, StoreConformance,
                         ::testing::Values(StorePlaceKind{"dir", make_folder}), kName);
INSTANTIATE_TEST_SUITE_P(Dir, KillDeathTest, ::testing::Values(StorePlaceKind{"dir", make_folder}),
                         kName);

}  // namespace
}  // namespace samepage::imagestore

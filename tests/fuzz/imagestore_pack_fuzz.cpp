// The promise under test: whatever a pack file holds, opening it says what it is or refuses it, a
// scan visits only records that can be read back, and a record is never taken for another's.

#include <string>

#include <sys/mman.h>
#include <unistd.h>

#include "core/check.h"
#include "core/fd.h"
#include "imagestore/pack_file.h"
#include "tests/fuzz/fuzz_target.h"

namespace samepage::imagestore {
namespace {

ObjectName name(std::uint8_t number) {
  ObjectName name;
  name.bytes.fill(std::byte{number});
  return name;
}

void decode(std::span<const std::byte> bytes) {
  const samepage::fuzz::Input copy(bytes.begin(), bytes.end());
  if (const auto object = decode_record(copy, name(1))) {
    CHECK(encode_record(name(1), *object) == copy);
  }
  const Fd memory(::memfd_create("pack", MFD_CLOEXEC));
  CHECK(static_cast<bool>(memory));
  CHECK(::write(memory.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  const std::string path = "/proc/self/fd/" + std::to_string(memory.get());
  const auto pack = PackFile::open(path, 7, false);
  if (!pack) {
    const Errc code = pack.error().code();
    CHECK(code == Errc::kCorrupt || code == Errc::kInvalid);
    return;
  }
  const auto visit = [&](const ObjectName& found, const RecordPlace& place) -> Result<void> {
    CHECK(place.offset + place.bytes <= pack->bytes());
    CHECK(pack->read(place, found).has_value());
    return {};
  };
  const auto end = pack->scan(PackFile::kHeaderBytes, visit);
  CHECK(end.has_value());
  CHECK(*end <= pack->bytes());
}

}  // namespace
}  // namespace samepage::imagestore

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  using namespace samepage::imagestore;  // NOLINT(google-build-using-namespace)
  const samepage::fuzz::Input object(300, std::byte{5});
  samepage::fuzz::Input pack(PackFile::kHeaderBytes);
  const std::string mark = "SAMEPACK";
  for (std::size_t i = 0; i < mark.size(); ++i) pack[i] = static_cast<std::byte>(mark[i]);
  pack[8] = std::byte{1};
  pack[12] = std::byte{7};
  for (std::uint8_t number = 1; number < 5; ++number) {
    const auto record = encode_record(name(number), std::span(object).first(number * 60U));
    pack.insert(pack.end(), record.begin(), record.end());
  }
  return {encode_record(name(1), object), pack};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  samepage::imagestore::decode(samepage::fuzz::as_input(data, size));
  return 0;
}

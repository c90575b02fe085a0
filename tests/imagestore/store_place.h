#pragma once

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>

#include "imagestore/image_store.h"
#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {

/// A place for one test's store, so that the same tests run on every kind of origin.
class StorePlace {
 public:
  virtual ~StorePlace() = default;

  virtual Result<std::unique_ptr<Origin>> open_origin(DirOrigin::Access access) = 0;

  /// Of `name`'s object as it is stored, flips one bit of the byte at `at`, beyond the end counted
  /// anew from the beginning.
  virtual void damage(const ObjectName& name, std::size_t at) = 0;

  /// What to open the whole store with.
  virtual ImageStore::Options store_options() = 0;
};

/// How a kind of place is made.
struct StorePlaceKind {
  std::string name;
  std::unique_ptr<StorePlace> (*make)();
  std::uint64_t kills_few = 10;  ///< Of a kind of process, unless SAMEPAGE_FAULTS says otherwise.

  friend std::ostream& operator<<(std::ostream& out, const StorePlaceKind& kind) {
    return out << kind.name;
  }
};

}  // namespace samepage::imagestore

#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "imagestore/image_store.h"
#include "imagestore/store_client.h"
#include "imagestore/store_control.h"
#include "tools/benchmarks/store/reader.h"

namespace samepage::bench {

/// Where an image's pages lie, read from its manifest once for all clients; and the image itself,
/// to compare with.
class ExtentMap {
 public:
  static Result<std::unique_ptr<ExtentMap>> open(imagestore::ImageStore& store,
                                                 const std::string& image, const std::string& file);
  ~ExtentMap();
  ExtentMap(const ExtentMap&) = delete;
  ExtentMap& operator=(const ExtentMap&) = delete;

  /// The extents behind chunks, in order; with `once`, each of them once.
  std::vector<imagestore::ObjectName> extents(std::span<const Chunk> chunks, bool once) const;

  /// One page of every eighth fetched extent, another one with each `turn`, is the image's: what
  /// is in doubt here is the store, which digested all of them.
  bool is_true(const imagestore::ObjectName& name, const imagestore::ExtentBuffer& extent,
               std::size_t turn) const;

  const imagestore::DomainKeys& keys() const { return keys_; }
  std::uint64_t image_bytes() const { return image_.size(); }

 private:
  ExtentMap(const imagestore::DomainKeys& keys, std::span<const std::byte> image)
      : keys_(keys), image_(image) {}

  struct Placed {
    std::uint64_t page = 0;
    std::uint32_t slot = 0;
  };
  imagestore::DomainKeys keys_;
  std::span<const std::byte> image_;
  static constexpr std::uint32_t kZeros = UINT32_MAX;
  std::vector<std::uint32_t> by_page_;  ///< Which of names_; kZeros.
  std::vector<imagestore::ObjectName> names_;
  std::unordered_map<imagestore::ObjectName, std::vector<Placed>> by_extent_;
};

/// Reads extents through a StoreClient and compares them with the image.
class StoreReader final : public Reader {
 public:
  /// `again`: an extent is fetched for every chunk that lies in it.
  StoreReader(const ExtentMap& map, std::unique_ptr<imagestore::StoreControl> control,
              imagestore::StoreClient::Options options, imagestore::ExtentSource* origin,
              bool again);

  imagestore::StoreClient& client() { return client_; }

  Result<std::uint64_t> read(std::span<const Chunk> chunks, std::size_t depth,
                             const Done& done) override;

  /// kTimedOut: no node.
  Result<void> wait();

 private:
  const ExtentMap& map_;
  const bool again_;
  const SystemClock clock_;
  std::unique_ptr<imagestore::StoreControl> control_;
  imagestore::StoreClient client_;
  std::vector<std::unique_ptr<imagestore::ExtentBuffer>> buffers_;
};

}  // namespace samepage::bench

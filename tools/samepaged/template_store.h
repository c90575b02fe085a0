#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/result.h"
#include "imagestore/image_store.h"
#include "migrator/template_shelf.h"
#include "migrator/template_state.h"

namespace samepage::agent {

/// Templates in the image store, where other hosts find them.
///
/// A template NAME is the image `NAME.template`: the RAM, page by page at its address, and behind
/// it the state and a trailer (docs/formats/migrator.md). So its pages are the same objects as
/// those of disk images and of other templates, and what is stored once is fetched once. Invariant:
/// an image without a trailer, which a crash left, is no template. Threads: every method may be
/// called from any thread; each opens the store anew. Errors besides those given: ImageStore's.
class TemplateStore {
 public:
  struct Options {
    imagestore::ImageStore::Options images;  ///< Its access does not matter.
    std::string agent_socket;                ///< Leads to store nodes; empty: the origin alone.
  };

  TemplateStore(Options options, const Clock& clock)
      : options_(std::move(options)), clock_(clock) {}

  /// Stores a template that lies on the shelf. kInvalid: the name is taken.
  Result<void> put(const migrator::ShelvedTemplate& shelved) const;

  std::vector<migrator::TemplateState> list() const;

  /// kNotFound: the store has no such template.
  Result<migrator::TemplateState> find(const std::string& name) const;

  /// Writes the RAM of a template into a file; returns how many bytes came out of the store, as
  /// they are stored. kCorrupt: something in the store is damaged. kIo: the file system is full.
  Result<std::uint64_t> get_ram(const migrator::TemplateState& state,
                                const std::filesystem::path& file) const;

  /// kCorrupt: the RAM file differs from what the store has; the message says where.
  Result<void> verify(const migrator::ShelvedTemplate& shelved) const;

  /// kNotFound: the store has no such template.
  Result<void> remove(const std::string& name) const;

 private:
  Result<std::unique_ptr<imagestore::ImageStore>> open(imagestore::DirOrigin::Access access) const;

  const Options options_;
  const Clock& clock_;
};

}  // namespace samepage::agent

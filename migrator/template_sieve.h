#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/page.h"
#include "core/result.h"
#include "fingerprinter/guest_memory.h"
#include "migrator/stream_parser.h"

namespace samepage::migrator {

/// Keeps from a target's QEMU, which maps a template's RAM file privately, the page records that
/// would only write to a page what it holds, and so make it the guest's own.
///
/// Invariant: after each record QEMU's memory is what it would be after the whole stream (see
/// "Moving a fork into its template" in docs/design-notes.md). A record is left out only when it
/// says of a page that nothing has written what the template has there, byte for byte. What the
/// parser does not understand passes, and everything behind it.
/// Threads: one at a time, but pages_kept() from any.
class TemplateSieve {
 public:
  struct Template {
    std::shared_ptr<fingerprinter::GuestMemory> ram;  ///< The file that QEMU maps.
    std::string block;                                ///< QEMU's name of it.

    /// Pages that QEMU's mapping has of its own from before the stream: one for each page.
    std::vector<bool> written;
  };
  explicit TemplateSieve(Template mapped);

  using Write = std::function<Result<void>(std::span<const std::byte>)>;

  /// Takes the next bytes of the stream and writes those that QEMU must get; the front of a record
  /// waits for its rest. kInvalid: the stream asks for post-copy, at which QEMU would empty the
  /// template's file; nothing of that request was written. Errors besides: `write`'s.
  Result<void> pass(std::span<const std::byte> bytes, const Write& write);

  /// The stream has ended: writes what waits.
  Result<void> finish(const Write& write);

  /// Pages of the guest that are the template's.
  std::uint64_t pages_kept() const { return pages_kept_; }

 private:
  Result<std::size_t> pass_whole(std::span<const std::byte> bytes, const Write& write);
  bool changes_nothing(const StreamToken& token);
  bool is_mapped() const;  ///< QEMU's largest block is the one that maps the template.
  bool equals_template(const StreamToken& token, std::uint64_t page);

  const std::shared_ptr<fingerprinter::GuestMemory> ram_;
  const std::string block_;
  std::vector<bool> written_;
  std::vector<bool> kept_;
  std::atomic<std::uint64_t> pages_kept_{0};
  StreamParser parser_;
  std::vector<std::byte> waiting_;  ///< The front of a record.
  std::array<std::byte, kPageSize> page_{};
};

}  // namespace samepage::migrator

#pragma once

#include <memory>
#include <optional>

#include "core/result.h"
#include "core/sharing_domain.h"
#include "migrator/relay.h"
#include "migrator/session_secret.h"
#include "migrator/template_sieve.h"
#include "pagecache/page_cache.h"

namespace samepage::migrator {

/// Where the target's relay finds pages.
struct TargetPages {
  TargetPages(pagecache::PageCache& pages,  // NOLINT(google-explicit-constructor)
              std::optional<pagecache::SourceId> like_the_guest = std::nullopt)
      : cache(pages), base(like_the_guest) {}

  pagecache::PageCache& cache;  ///< Borrowed; outlives the relay, and is of its domain.

  /// The source of `cache` that is like the guest, page for page, when it is known: its checkpoint,
  /// when it comes home. Otherwise the relay finds out whether there is one.
  std::optional<pagecache::SourceId> base;

  /// When QEMU maps the guest's template.
  std::unique_ptr<TemplateSieve> sieve = nullptr;
};

/// The target host's half of a migration relay: tells the source which pages are on this host,
/// rebuilds QEMU's stream from references and literals, and forwards QEMU's answers.
///
/// Invariant: every byte that QEMU gets is part of a prefix of the source's stream whose MAC was
/// checked first (see "Nothing unverified reaches QEMU" in docs/design-notes.md), and it gets all
/// of them but for what a sieve leaves out.
///
/// Threads: run() uses its caller's thread and several of its own; stop(), counters() and
/// delivered() may be called from any thread.
class RelayTarget final {
 public:
  /// kInvalid: an option is out of its range.
  static Result<std::unique_ptr<RelayTarget>> create(const RelayOptions& options, RelayEnds ends,
                                                     TargetPages pages, const SharingDomain& domain,
                                                     const SessionSecret& secret);

  /// Relays until everything is delivered and QEMU has closed its side. Once only. Both connections
  /// are shut down when it returns, so on every error QEMU sees a broken stream and gives up.
  /// kUnavailable: QEMU or the source broke off, or stop() was called. kTimedOut: one of them
  /// stalled. kCorrupt: what came does not add up to the source's stream; none of it was delivered.
  /// kInvalid: the source speaks another version.
  Result<void> run();

  /// Makes run() return soon, also when it has not begun yet.
  void stop();

  RelayCounters counters() const;

  /// The whole stream, to the end that the source's QEMU gave it, was verified and handed to QEMU;
  /// run() may still fail. Whether QEMU meant to end there is for libvirt to say.
  bool delivered() const;

  ~RelayTarget();
  RelayTarget(const RelayTarget&) = delete;
  RelayTarget& operator=(const RelayTarget&) = delete;

 private:
  class Impl;
  explicit RelayTarget(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace samepage::migrator

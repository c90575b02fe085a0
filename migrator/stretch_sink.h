#pragma once

#include "migrator/stream_cutter.h"

namespace samepage::migrator {

/// Sees what a source's relays send.
class StretchSink {
 public:
  virtual ~StretchSink() = default;

  /// A stretch that is about to be encoded. Called by the thread that reads QEMU, so it must not
  /// wait; in the stream's order for each of QEMU's streams. The bytes stay while their slab is
  /// held.
  virtual void saw(const CutStretch& stretch) = 0;
};

}  // namespace samepage::migrator

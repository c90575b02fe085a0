#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"
#include "migrator/domain_xml.h"

namespace samepage::migrator {

/// All of a boot template but its RAM: what it is, the domain that its forks are made of, and the
/// state of the leader's devices at the freeze. docs/formats/migrator.md has the bytes.
struct TemplateState {
  std::string name;
  std::string id;     ///< 32 hexadecimal digits; another whenever a template is made.
  std::string image;  ///< That its leader booted from; empty: it has no disk of the store.
  std::uint64_t image_version = 0;
  std::uint64_t disk_version = 0;  ///< Of disk_image_of(name): the leader's disk at the freeze.
  std::uint64_t memory_bytes = 0;
  std::uint32_t vcpus = 0;
  std::string hypervisor;  ///< "QEMU 7.2.22": only the like can read the devices' state.
  std::chrono::sys_seconds made_at{};
  std::uint64_t ready_ms = 0;  ///< From the leader's start until it was ready.
  std::string ram_block;       ///< The name of its RAM block and of the block's file.

  LeaderXml leader;
  std::string cookie;             ///< libvirt's, of the leader's save image.
  std::vector<std::byte> stream;  ///< QEMU's state without the RAM block.

  std::vector<std::byte> serialize() const;

  /// kCorrupt: these bytes are no template's state. Nothing in it is believed beyond its shape:
  /// the domain's XML is for libvirt to judge.
  static Result<TemplateState> parse(std::span<const std::byte> bytes);

  static constexpr std::size_t kBytesMax = std::size_t{64} << 20U;
};

/// kInvalid: not 1 to 64 of A-Z a-z 0-9 . _ - with a letter or digit first.
Result<void> check_template_name(std::string_view name);

}  // namespace samepage::migrator

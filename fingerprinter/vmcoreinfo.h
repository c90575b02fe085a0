#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/page.h"
#include "fingerprinter/ram_image.h"

namespace samepage::fingerprinter {

/// What a Linux kernel says of itself in its RAM for whoever reads a dump: a page of text, lines of
/// "KEY=VALUE" (Documentation/admin-guide/kdump/vmcoreinfo.rst). It is there from early in the boot
/// on, and it is the guest's word: nothing in it is to be trusted.
class Vmcoreinfo {
 public:
  /// Every page that looks like one; there may be copies, and old ones.
  static std::vector<Vmcoreinfo> find(const RamImage& ram);

  explicit Vmcoreinfo(PageView page);

  /// The value of "KEY"; empty when there is none.
  std::string_view text(std::string_view key) const;

  /// "SYMBOL(name)", which is hexadecimal.
  std::optional<std::uint64_t> symbol(std::string_view name) const;

  /// "NUMBER(name)", which is decimal and may be negative.
  std::optional<std::int64_t> number(std::string_view name) const;

  /// "KERNELOFFSET": how far KASLR moved the kernel from where it was linked to run.
  std::uint64_t kernel_offset() const;

 private:
  std::map<std::string, std::string, std::less<>> lines_;
};

}  // namespace samepage::fingerprinter

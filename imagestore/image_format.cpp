#include "imagestore/image_format.h"

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string_view>
#include <system_error>

#include <unistd.h>

namespace samepage::imagestore {
namespace {

using std::string_view_literals::operator""sv;

constexpr std::size_t kHeaderBytes = 512;
constexpr std::size_t kFileNameMax = 1023;          // QEMU's limit for qcow2.
constexpr std::size_t kDescriptorBytesMax = 65536;  // Of a VMDK.

Result<std::string> read_text(int fd, std::uint64_t offset, std::size_t size) {
  std::string text(size, '\0');
  ssize_t got = -1;
  do {
    got = ::pread(fd, text.data(), text.size(), static_cast<off_t>(offset & INT64_MAX));
  } while (got < 0 && errno == EINTR);
  if (got < 0) return fail(Errc::kIo, "read: " + std::generic_category().message(errno));
  text.resize(static_cast<std::size_t>(got));
  return text;
}

/// A number of `size` bytes at `offset`, 0 when the header is too short for it.
std::uint64_t big_endian(std::string_view header, std::size_t offset, std::size_t size) {
  std::uint64_t value = 0;
  for (const char c : header.substr(std::min(offset, header.size()), size)) {
    value = value << 8U | static_cast<std::uint8_t>(c);
  }
  return value;
}

std::uint64_t little_endian(std::string_view header, std::size_t offset, std::size_t size) {
  std::string bytes(header.substr(std::min(offset, header.size()), size));
  std::reverse(bytes.begin(), bytes.end());
  return big_endian(bytes, 0, bytes.size());
}

/// A name out of the image, fit for a message.
std::string quoted(std::string_view name) {
  std::string text;
  for (const char c : name) text.push_back(c >= ' ' && c < 127 ? c : '?');
  return "\"" + text + "\"";
}

Result<ImageFormat> detect_qcow(int fd, std::string_view header) {
  constexpr std::uint64_t kExternalDataFile = 4;  // Of the incompatible features.
  const std::uint64_t version = big_endian(header, 4, 4);
  ImageFormat format{.name = version == 1 ? "qcow" : "qcow2", .other_files = {}};
  if (version >= 3 && (big_endian(header, 72, 8) & kExternalDataFile) != 0) {
    format.other_files = "an external data file";
    return format;
  }
  const std::uint64_t backing_offset = big_endian(header, 8, 8);
  if (backing_offset != 0) {
    const auto size = std::min<std::uint64_t>(big_endian(header, 16, 4), kFileNameMax);
    const std::string name = TRY(read_text(fd, backing_offset, size));
    format.other_files = "the backing file " + quoted(name);
    format.is_chain = true;
  }
  return format;
}

Result<ImageFormat> detect_vmdk(int fd, std::string_view header) {
  ImageFormat format{.name = "vmdk", .other_files = {}};
  const std::uint64_t capacity = little_endian(header, 12, 8);
  if (!header.starts_with("KDMV") || capacity == 0) {
    format.other_files = "extents in other files";
    return format;
  }
  const std::uint64_t size =
      std::min<std::uint64_t>(little_endian(header, 36, 8), kDescriptorBytesMax / 512) * 512;
  const std::string descriptor = TRY(read_text(fd, little_endian(header, 28, 8) * 512, size));
  if (descriptor.find("parentFileNameHint") != std::string::npos) {
    format.other_files = "a parent file";
    format.is_chain = true;
  }
  return format;
}

ImageFormat detect_qed(std::string_view header) {
  ImageFormat format{.name = "qed", .other_files = {}};
  if ((little_endian(header, 16, 8) & 1U) != 0) {
    format.other_files = "a backing file";
    format.is_chain = true;
  }
  return format;
}

ImageFormat detect_vpc(std::string_view header) {
  constexpr std::uint64_t kDifferencing = 4;
  ImageFormat format{.name = "vpc", .other_files = {}};
  if (big_endian(header, 60, 4) == kDifferencing) format.other_files = "a parent disk";
  return format;
}

}  // namespace

Result<ImageFormat> detect_format(int fd) {
  const std::string text = TRY(read_text(fd, 0, kHeaderBytes));
  const std::string_view header = text;
  if (header.starts_with("QFI\xFB")) return detect_qcow(fd, header);
  if (header.starts_with("QED\0"sv)) return detect_qed(header);
  if (header.starts_with("KDMV") || header.starts_with("COWD") ||
      header.starts_with("# Disk DescriptorFile")) {
    return detect_vmdk(fd, header);
  }
  if (header.starts_with("conectix")) return detect_vpc(header);
  if (header.starts_with("vhdxfile")) return ImageFormat{.name = "vhdx", .other_files = {}};
  if (header.starts_with("WithoutFreeSpace") || header.starts_with("WithouFreSpacExt")) {
    return ImageFormat{.name = "parallels", .other_files = {}};
  }
  if (little_endian(header, 64, 4) == 0xBEDA107F) {
    return ImageFormat{.name = "vdi", .other_files = {}};
  }
  return ImageFormat{};
}

Result<void> check_format_name(const std::string& format) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  };
  if (!format.empty() && format.size() <= 32 &&
      std::all_of(format.begin(), format.end(), allowed)) {
    return {};
  }
  return fail(Errc::kInvalid, "not the name of an image format; `qemu-img --help` lists them");
}

}  // namespace samepage::imagestore

#include "imagestore/image_source.h"

#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>

#include "core/fd.h"
#include "imagestore/image_format.h"
#include "imagestore/manifest_node.h"
#include "imagestore/nbd_source.h"
#include "imagestore/raw_source.h"

namespace samepage::imagestore {
namespace {

Result<Fd> open_image_file(const std::filesystem::path& path) {
  // Not blocking, so that a pipe by that name is refused and not waited for.
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) {
    const Errc code = errno == ENOENT ? Errc::kNotFound : Errc::kIo;
    return fail(code, std::generic_category().message(errno));
  }
  struct stat about {};
  if (::fstat(fd.get(), &about) != 0) {
    return fail(Errc::kIo, std::generic_category().message(errno));
  }
  if (!S_ISREG(about.st_mode) && !S_ISBLK(about.st_mode)) {
    return fail(Errc::kInvalid, "not a file or block device");
  }
  return fd;
}

Result<void> refuse_other_files(const ImageFormat& format) {
  if (format.other_files.empty()) return {};
  const std::string what =
      "this " + format.name + " image takes bytes from " + format.other_files + ". ";
  if (format.is_chain) {
    return fail(Errc::kInvalid, what +
                                    "If you trust the image's maker, import it with "
                                    "--follow-backing; else flatten it first");
  }
  return fail(Errc::kInvalid, what + "Convert it to one file first: qemu-img convert -O qcow2");
}

Result<OpenedSource> open_checked(const SourceOptions& options) {
  Fd fd = TRY(open_image_file(options.path));
  const ImageFormat detected = TRY(detect_format(fd.get()));
  OpenedSource opened{.format = options.format.empty() ? detected.name : options.format,
                      .source = nullptr};
  TRY(check_format_name(opened.format));
  if (opened.format == "raw") {
    opened.source = TRY(open_raw_source(std::move(fd)));
  } else if (options.follow_backing && detected.is_chain) {
    std::error_code error;
    const auto path = std::filesystem::absolute(options.path, error);
    if (error) return fail(Errc::kIo, error.message());
    opened.source = TRY(open_nbd_chain(path.string(), opened.format));
  } else {
    TRY(refuse_other_files(detected));
    opened.source = TRY(open_nbd_source(std::move(fd), opened.format));
  }
  if (opened.source->size_bytes() > kImageBytesMax) {
    return fail(Errc::kInvalid, "an image beyond 1 PiB");
  }
  return opened;
}

}  // namespace

Result<OpenedSource> open_image_source(const SourceOptions& options) {
  auto opened = open_checked(options);
  if (!opened) return tl::unexpected(std::move(opened).error().within(options.path.string()));
  return opened;
}

}  // namespace samepage::imagestore

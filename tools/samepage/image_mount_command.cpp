#define FUSE_USE_VERSION 31

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include <CLI/CLI.hpp>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/handle.h"
#include "tools/samepage/image_view.h"
#include "tools/samepage/subcommands.h"

namespace samepage::cli {
namespace {

using imagestore::DirOrigin;
using imagestore::ImageStore;

struct MountOptions {
  std::string store = "/var/lib/samepage/store";
  std::string folder;
};

/// What is mounted; FUSE hands it back with each call.
ImageView& view() {
  return *static_cast<ImageView*>(fuse_get_context()->private_data);
}

int error_of(const Error& error) {
  return error.code() == Errc::kNotFound ? -ENOENT : -EIO;
}

int get_attributes(const char* path, struct stat* about, fuse_file_info*) {
  const auto node = view().find(path);
  if (!node) return error_of(node.error());
  std::memset(about, 0, sizeof *about);
  const bool is_file = node->kind == ImageView::Kind::kFile;
  about->st_mode = is_file ? S_IFREG | 0440 : S_IFDIR | 0550;
  about->st_nlink = is_file ? 1 : 2;
  about->st_size = static_cast<off_t>(node->bytes);
  about->st_mtime = node->modified;
  about->st_uid = ::getuid();
  about->st_gid = ::getgid();
  return 0;
}

int read_folder(const char* path, void* list, fuse_fill_dir_t fill, off_t, fuse_file_info*,
                fuse_readdir_flags) {
  const auto names = view().list(path);
  if (!names) return error_of(names.error());
  for (const char* name : {".", ".."}) fill(list, name, nullptr, 0, fuse_fill_dir_flags{});
  for (const auto& name : *names) fill(list, name.c_str(), nullptr, 0, fuse_fill_dir_flags{});
  return 0;
}

int open_file(const char* path, fuse_file_info* file) {
  const auto node = view().find(path);
  if (!node) return error_of(node.error());
  if ((file->flags & O_ACCMODE) != O_RDONLY) return -EROFS;
  file->keep_cache = 1;  // A version never changes.
  return 0;
}

int read_file(const char* path, char* bytes, std::size_t size, off_t offset, fuse_file_info*) {
  const auto read = view().read(path, static_cast<std::uint64_t>(offset),
                                {reinterpret_cast<std::byte*>(bytes), size});
  return read ? static_cast<int>(*read) : error_of(read.error());
}

fuse_operations operations() {
  fuse_operations table{};
  table.getattr = get_attributes;
  table.readdir = read_folder;
  table.open = open_file;
  table.read = read_file;
  return table;
}

Result<void> mount(Session& session, const MountOptions& options) {
  ImageView shown(
      TRY(ImageStore::open({.folder = options.store, .access = DirOrigin::Access::kRead})));
  std::string program = "samepage";
  std::string flag = "-o";
  std::string settings = "ro,fsname=samepage,subtype=samepage,default_permissions";
  std::array<char*, 4> words{program.data(), flag.data(), settings.data(), nullptr};
  fuse_args arguments = FUSE_ARGS_INIT(3, words.data());
  const fuse_operations table = operations();
  const Handle<fuse, fuse_destroy> mounted(fuse_new(&arguments, &table, sizeof table, &shown));
  fuse_opt_free_args(&arguments);
  if (!mounted) return fail(Errc::kIo, "FUSE cannot be used here");
  if (fuse_mount(mounted.get(), options.folder.c_str()) != 0) {
    return fail(Errc::kIo, "cannot mount at " + options.folder + ": " +
                               "is it an empty folder, and /dev/fuse there?");
  }
  fuse_session* const fuse_session = fuse_get_session(mounted.get());
  fuse_set_signal_handlers(fuse_session);
  session.talk << "images are at " << options.folder << "/IMAGE/VERSION until Ctrl-C or umount\n";
  session.talk.flush();
  const int ended = fuse_loop(mounted.get());
  fuse_remove_signal_handlers(fuse_session);
  fuse_unmount(mounted.get());
  if (ended < 0) return fail(Errc::kIo, "the mount ended: " + std::string(::strerror(-ended)));
  return {};
}

}  // namespace

void add_image_mount(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<MountOptions>();
  CLI::App& image = *root.get_subcommand("image");
  CLI::App& mounted =
      subcommands.add(image, "mount", "Show every version as a read-only raw file",
                      [options](Session& session) { return mount(session, *options); });
  mounted.add_option("folder", options->folder, "Where; it stays until Ctrl-C or umount")
      ->required()
      ->type_name(kFilePath);
  mounted.add_option("--store", options->store, "The store's folder")
      ->type_name(kFilePath)
      ->capture_default_str();
}

}  // namespace samepage::cli

#include "tools/samepage/image_command.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/chrono.h>
#include <nlohmann/json.hpp>

#include "tools/samepage/quantity.h"

namespace samepage::cli {
namespace {

double as_double(std::uint64_t count) {
  return static_cast<double>(count);
}

/// Adds subcommands of `samepage image` that all say where the store is.
class ImageSubcommands {
 public:
  ImageSubcommands(CLI::App& image, Subcommands& subcommands)
      : image_(image), subcommands_(subcommands) {}

  using Does = Result<void> (*)(Session&, const ImageOptions&);

  CLI::App& add(const char* name, const char* about, Does does) {
    CLI::App& added = subcommands_.add(
        image_, name, about,
        [options = options_, does](Session& session) { return does(session, *options); });
    add_store_options(added, *options_);
    return added;
  }

  void add_source(CLI::App& to, const char* about) {
    to.add_option("file", options_->file, about)->required()->type_name(kFilePath);
    to.add_option("--format", options_->format, "Take the file as this format (raw, qcow2, ...)")
        ->type_name("FORMAT");
    to.add_flag("--follow-backing", options_->follow_backing,
                "Read the image's backing files too: only if you trust its maker");
  }

  ImageOptions& options() { return *options_; }

 private:
  CLI::App& image_;
  Subcommands& subcommands_;
  std::shared_ptr<ImageOptions> options_ = std::make_shared<ImageOptions>();
};

void add_files(ImageSubcommands& image) {
  ImageOptions& options = image.options();
  CLI::App& imported =
      image.add("import", "Add an image file of any format that QEMU knows", import_file);
  image.add_source(imported, "The image; its format is told by its content");
  imported.add_option("--name", options.name, "The image's name; the file's when not given")
      ->type_name("NAME");
  imported
      .add_option("--like", options.like,
                  "Pack pages in the order in which a guest read them when it booted from this "
                  "image")
      ->type_name(kImageName);

  CLI::App& exported = image.add("export", "Write an image as a sparse raw file", export_file);
  exported.add_option("name", options.name, "The image, or IMAGE@VERSION")
      ->required()
      ->type_name(kImageName);
  exported.add_option("file", options.file, "The file to make; one that exists is left alone")
      ->required()
      ->type_name(kFilePath);

  CLI::App& committed =
      image.add("commit", "Make a file's content the next version of an image", commit_file);
  committed
      .add_option("name", options.name,
                  "The image, or IMAGE@VERSION: the version that the file was made from")
      ->required()
      ->type_name(kImageName);
  image.add_source(committed, "The file; what differs is stored");
  committed.add_flag("--dry-run", options.dry_run, "Say what differs and commit nothing");
}

void add_versions(ImageSubcommands& image) {
  ImageOptions& options = image.options();
  const auto add_name = [&](CLI::App& to, const char* about) {
    to.add_option("name", options.name, about)->required()->type_name(kImageName);
  };
  image.add("list", "List the images", list_images)
      .add_flag("--names", options.names, "Print the names only, one a line");
  add_name(image.add("show", "List an image's versions, and who uses them", show_image),
           "The image");

  CLI::App& cloned =
      image.add("clone", "Give a version another name, in constant time", clone_version);
  add_name(cloned, "The image, or IMAGE@VERSION");
  cloned.add_option("new", options.other, "The new image's name")->required()->type_name("NAME");

  CLI::App& compared =
      image.add("diff", "List the runs of pages in which two versions differ: first page, pages",
                diff_images);
  add_name(compared, "The image before, or IMAGE@VERSION");
  compared.add_option("other", options.other, "The image after, or IMAGE@VERSION")
      ->required()
      ->type_name(kImageName);

  add_name(image.add("rm", "Remove an image, or one version that is not the newest", remove_image),
           "The image, or IMAGE@VERSION");
}

void add_upkeep(ImageSubcommands& image) {
  ImageOptions& options = image.options();
  image.add("verify", "Check every page, manifest and record against its digest", verify_images)
      .add_option("name", options.name, "One image instead of the whole store")
      ->type_name(kImageName);
  CLI::App& collected =
      image.add("gc", "Free what no image uses: mark it, and remove it a grace time later",
                collect_image_garbage);
  collected
      .add_option("--grace-hours", options.grace_hours,
                  "How long marked objects stay; longer than any VM's lease on a version")
      ->check(CLI::Range(0.25, 8'760.0))
      ->type_name("HOURS")
      ->capture_default_str();
  collected.add_flag("--dry-run", options.dry_run, "Say what would go and change nothing");
}

}  // namespace

Result<VersionName> parse_version_name(const std::string& text) {
  const auto at = text.find('@');
  VersionName name{.image = text.substr(0, at)};
  if (at == text.npos) return name;
  const char* const begin = text.data() + at + 1;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(begin, end, name.number);
  if (error == std::errc() && rest == end && name.number > 0) return name;
  return fail(Errc::kInvalid,
              "\"" + text + "\": after the @ comes a version's number, as `samepage image show " +
                  name.image + "` lists them");
}

Result<std::unique_ptr<imagestore::ImageStore>> open_store(const ImageOptions& options,
                                                           imagestore::DirOrigin::Access access) {
  return imagestore::ImageStore::open({.folder = options.store,
                                       .access = access,
                                       .origin = options.origin,
                                       .ceph_conf = options.ceph_conf});
}

nlohmann::json version_json(const imagestore::ImageVersion& version) {
  return {{"version", to_hex(version.id)},
          {"size_bytes", version.size_bytes},
          {"data_bytes", version.data_bytes},
          {"new_bytes", version.new_bytes},
          {"stored_bytes", version.stored_bytes},
          {"source_format", version.source_format},
          {"imported_at", show_time(version.imported_at)}};
}

std::string show_bytes(std::uint64_t bytes) {
  return show_bytes_as_mib(as_double(bytes));
}

std::string show_time(std::chrono::sys_seconds time) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(time)));
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

ProgressReport::ProgressReport(Session& session, std::string label)
    : bar_(session.talk, session.talk_width), label_(std::move(label)) {}

bool ProgressReport::operator()(const imagestore::ImportProgress& progress) {
  const double total = as_double(progress.bytes_total);
  const double done = as_double(progress.bytes_done);
  const double pace = done / std::max(seconds_since(start_), 0.001);
  bar_.show(label_, total > 0 ? done / total : 1,
            show_bytes(progress.bytes_done) + ", " + show_bytes_as_mib(pace) + "/s");
  return interrupts_.count() == 0;
}

void add_store_options(CLI::App& command, ImageOptions& options) {
  command.add_option("--store", options.store, "The store's folder")
      ->type_name(kFilePath)
      ->capture_default_str();
  command
      .add_option(
          "--origin", options.origin,
          "Where images are durable: dir: for the store's folder, or rados:POOL[/NAMESPACE]")
      ->type_name("ORIGIN")
      ->capture_default_str();
  command.add_option("--ceph-conf", options.ceph_conf, "The Ceph cluster's configuration")
      ->type_name(kFilePath)
      ->capture_default_str();
}

void add_image(CLI::App& root, Subcommands& subcommands) {
  CLI::App& app = subcommands.add(root, "image", "Keep disk images, each page of them once",
                                  [](Session&) { return Result<void>(); });
  app.require_subcommand(1);
  ImageSubcommands image(app, subcommands);
  add_files(image);
  add_versions(image);
  add_upkeep(image);
}

}  // namespace samepage::cli

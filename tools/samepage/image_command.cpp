#include <chrono>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/chrono.h>
#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "imagestore/exporter.h"
#include "imagestore/image_store.h"
#include "imagestore/importer.h"
#include "imagestore/verifier.h"
#include "tools/samepage/interrupts.h"
#include "tools/samepage/progress_bar.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using Access = imagestore::DirOrigin::Access;
using Align = Table::Align;
using imagestore::Image;
using imagestore::ImageStore;
using imagestore::ImageVersion;
using imagestore::ImportProgress;
using nlohmann::json;

struct ImageOptions {
  std::string store = "/var/lib/samepage/store";
  std::string file;
  std::string name;
  std::string format;
  bool follow_backing = false;
};

Result<std::unique_ptr<ImageStore>> open_store(const ImageOptions& options, Access access) {
  return ImageStore::open({.folder = options.store, .access = access});
}

double as_double(std::uint64_t count) {
  return static_cast<double>(count);
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

/// A bar with the pace, for as long as nobody presses Ctrl-C.
class ProgressReport {
 public:
  ProgressReport(Session& session, std::string label)
      : bar_(session.talk, session.talk_width), label_(std::move(label)) {}

  bool operator()(const ImportProgress& progress) {
    const double total = as_double(progress.bytes_total);
    const double done = as_double(progress.bytes_done);
    const double pace = done / std::max(seconds_since(start_), 0.001);
    bar_.show(label_, total > 0 ? done / total : 1,
              show_bytes(progress.bytes_done) + ", " + show_bytes_as_mib(pace) + "/s");
    return interrupts_.count() == 0;
  }

 private:
  ProgressBar bar_;
  std::string label_;
  Interrupts interrupts_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

json version_json(const ImageVersion& version) {
  return {{"version", to_hex(version.id)},
          {"size_bytes", version.size_bytes},
          {"data_bytes", version.data_bytes},
          {"new_bytes", version.new_bytes},
          {"stored_bytes", version.stored_bytes},
          {"source_format", version.source_format},
          {"imported_at", show_time(version.imported_at)}};
}

Result<void> import(Session& session, const ImageOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const auto store = TRY(open_store(options, Access::kWrite));
  const SystemClock clock;
  Result<imagestore::ImportReport> imported = fail(Errc::kInvalid, "not run");
  {
    ProgressReport progress(session, "import");
    imported = import_image(*store,
                            {.path = options.file,
                             .name = options.name,
                             .format = options.format,
                             .follow_backing = options.follow_backing,
                             .on_progress = std::ref(progress)},
                            clock);
  }
  const auto report = TRY(std::move(imported));
  const ImageVersion& version = report.version;
  if (session.json) {
    json body = version_json(version);
    body.update({{"name", report.name},
                 {"pages", report.pages},
                 {"zero_pages", report.zero_pages},
                 {"duplicate_pages", report.duplicate_pages},
                 {"new_pages", report.new_pages},
                 {"extents", report.extents},
                 {"seconds", seconds_since(start)}});
    session.out << body.dump() << '\n';
    return {};
  }
  session.talk << fmt::format(
      "imported {} ({}, {}) in {:.1f} s: {} data, of which {} new, stored in {}\n", report.name,
      version.source_format, show_bytes(version.size_bytes), seconds_since(start),
      show_bytes(version.data_bytes), show_bytes(version.new_bytes),
      show_bytes(version.stored_bytes));
  return {};
}

Result<void> list(Session& session, const ImageOptions& options) {
  const auto store = TRY(open_store(options, Access::kRead));
  const std::vector<Image> images = TRY(store->catalog().list());
  if (session.json) {
    json rows = json::array();
    for (const Image& image : images) {
      json row = version_json(image.head);
      row.update({{"name", image.name},
                  {"sharing_domain", image.sharing_domain},
                  {"versions", image.versions}});
      rows.push_back(std::move(row));
    }
    session.out << json{{"images", std::move(rows)}}.dump() << '\n';
    return {};
  }
  if (images.empty()) {
    session.talk << "the store is empty; `samepage image import FILE` fills it\n";
    return {};
  }
  Table table({{"IMAGE"},
               {"SIZE", Align::kRight},
               {"DATA", Align::kRight},
               {"NEW", Align::kRight},
               {"STORED", Align::kRight},
               {"FORMAT"},
               {"DOMAIN"},
               {"IMPORTED"},
               {"VERSION"}});
  for (const Image& image : images) {
    const ImageVersion& head = image.head;
    table.add_row({image.name, show_bytes(head.size_bytes), show_bytes(head.data_bytes),
                   show_bytes(head.new_bytes), show_bytes(head.stored_bytes), head.source_format,
                   image.sharing_domain, show_time(head.imported_at),
                   to_hex(head.id).substr(0, 12)});
  }
  table.print(session.out, session.out_width);
  return {};
}

void print_verified(const imagestore::VerifyReport& report, Session& session) {
  for (const std::string& problem : report.descriptions) session.out << printable(problem) << '\n';
  if (report.descriptions.size() < report.problems) {
    session.out << report.problems - report.descriptions.size() << " more like these\n";
  }
  session.out << fmt::format("{} images, {} versions, {} manifest nodes, {} pages read\n",
                             report.images, report.versions, report.nodes, report.pages);
  if (report.objects > 0) {
    session.out << fmt::format("{} objects, {}, {} stored pages digested\n", report.objects,
                               show_bytes(report.object_bytes), report.stored_pages);
  }
  if (report.reclaimable_objects > 0) {
    session.out << fmt::format("{} objects, {}, belong to no image: an import runs or was killed\n",
                               report.reclaimable_objects, show_bytes(report.reclaimable_bytes));
  }
  if (report.images_unchecked > 0 || report.objects_unchecked > 0) {
    session.out << fmt::format(
        "not checked, for they belong to other sharing domains: {} images, "
        "{} objects\n",
        report.images_unchecked, report.objects_unchecked);
  }
}

json verified_json(const imagestore::VerifyReport& report) {
  return {{"clean", report.clean()},
          {"problems", report.problems},
          {"descriptions", report.descriptions},
          {"images", report.images},
          {"versions", report.versions},
          {"nodes", report.nodes},
          {"pages", report.pages},
          {"objects", report.objects},
          {"object_bytes", report.object_bytes},
          {"stored_pages", report.stored_pages},
          {"reclaimable_objects", report.reclaimable_objects},
          {"reclaimable_bytes", report.reclaimable_bytes},
          {"images_unchecked", report.images_unchecked},
          {"objects_unchecked", report.objects_unchecked}};
}

Result<void> verify(Session& session, const ImageOptions& options) {
  const auto store = TRY(open_store(options, Access::kRead));
  Result<imagestore::VerifyReport> verified = fail(Errc::kInvalid, "not run");
  {
    ProgressReport progress(session, "verify");
    verified = verify_store(*store, {.image = options.name, .on_progress = std::ref(progress)});
  }
  const auto report = TRY(std::move(verified));
  if (session.json) {
    session.out << verified_json(report).dump() << '\n';
  } else {
    print_verified(report, session);
  }
  session.out.flush();
  if (!report.clean()) {
    return fail(Errc::kCorrupt, fmt::format("the store is damaged: {} problems", report.problems));
  }
  if (report.images_unchecked > 0) {
    return fail(Errc::kInvalid, "not everything could be checked");
  }
  if (!session.json) session.talk << "clean\n";
  return {};
}

Result<void> export_raw(Session& session, const ImageOptions& options) {
  const auto store = TRY(open_store(options, Access::kRead));
  {
    ProgressReport progress(session, "export");
    TRY(export_image(*store, options.name, options.file, std::ref(progress)));
  }
  if (!session.json) session.talk << "exported " << options.name << " as raw\n";
  return {};
}

}  // namespace

void add_image(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<ImageOptions>();
  CLI::App& image =
      subcommands.add(root, "image", "Keep disk images, each page of them once",
                      [options](Session& session) { return list(session, *options); });
  image.require_subcommand(1);
  const auto add = [&](const char* name, const char* about, auto action) -> CLI::App& {
    CLI::App& added = subcommands.add(image, name, about, [options, action](Session& session) {
      return action(session, *options);
    });
    added.add_option("--store", options->store, "The store's folder")
        ->type_name(kFilePath)
        ->capture_default_str();
    return added;
  };

  CLI::App& imported = add("import", "Add an image file of any format that QEMU knows", import);
  imported.add_option("file", options->file, "The image; its format is told by its content")
      ->required()
      ->type_name(kFilePath);
  imported.add_option("--name", options->name, "The image's name; the file's when not given")
      ->type_name("NAME");
  imported
      .add_option("--format", options->format, "Take the file as this format (raw, qcow2, ...)")
      ->type_name("FORMAT");
  imported.add_flag("--follow-backing", options->follow_backing,
                    "Read the image's backing files too: only if you trust its maker");

  add("list", "List the images", list);

  CLI::App& verified =
      add("verify", "Check every page, manifest and record against its digest", verify);
  verified.add_option("name", options->name, "One image instead of the whole store")
      ->type_name("NAME");

  CLI::App& exported = add("export", "Write an image as a sparse raw file", export_raw);
  exported.add_option("name", options->name, "The image")->required()->type_name("NAME");
  exported.add_option("file", options->file, "The file to make; one that exists is left alone")
      ->required()
      ->type_name(kFilePath);
}

}  // namespace samepage::cli

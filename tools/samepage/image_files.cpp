#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "imagestore/boot_trace.h"
#include "imagestore/exporter.h"
#include "imagestore/file_commit.h"
#include "tools/samepage/image_command.h"
#include "tools/samepage/table.h"

namespace samepage::cli {

using Access = imagestore::DirOrigin::Access;
using imagestore::ImageVersion;
using nlohmann::json;

Result<void> import_file(Session& session, const ImageOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const auto store = TRY(open_store(options, Access::kWrite));
  const SystemClock clock;
  std::vector<PageDigest> order;
  if (!options.like.empty()) {
    order = TRY(imagestore::newest_trace(store->catalog(), store->keys(), options.like)).digests();
  }
  Result<imagestore::ImportReport> imported = fail(Errc::kInvalid, "not run");
  {
    ProgressReport progress(session, "import");
    imported = import_image(*store,
                            {.path = options.file,
                             .name = options.name,
                             .format = options.format,
                             .follow_backing = options.follow_backing,
                             .order = std::move(order),
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

Result<void> export_file(Session& session, const ImageOptions& options) {
  const auto version = TRY(parse_version_name(options.name));
  const auto store = TRY(open_store(options, Access::kRead));
  {
    ProgressReport progress(session, "export");
    TRY(export_image(*store, version.image, version.number, options.file, std::ref(progress)));
  }
  if (!session.json) session.talk << "exported " << printable(options.name) << " as raw\n";
  return {};
}

Result<void> commit_file(Session& session, const ImageOptions& options) {
  const auto version = TRY(parse_version_name(options.name));
  const auto store = TRY(open_store(options, Access::kWrite));
  Result<imagestore::FileCommitReport> committed = fail(Errc::kInvalid, "not run");
  {
    ProgressReport progress(session, options.dry_run ? "compare" : "commit");
    committed = imagestore::commit_file(*store,
                                        {.image = version.image,
                                         .path = options.file,
                                         .base = version.number,
                                         .format = options.format,
                                         .follow_backing = options.follow_backing,
                                         .dry_run = options.dry_run,
                                         .on_progress = std::ref(progress)},
                                        SystemClock());
  }
  const auto report = TRY(std::move(committed));
  if (session.json) {
    json body = {{"image", version.image},
                 {"changed_pages", report.changed_pages},
                 {"zeroed_pages", report.zeroed_pages},
                 {"dry_run", options.dry_run}};
    if (!options.dry_run) {
      body.update(version_json(report.commit.version));
      body.update({{"number", report.commit.number}, {"rebases", report.commit.rebases}});
    }
    session.out << body.dump() << '\n';
    return {};
  }
  session.talk << fmt::format("{} pages differ, {} of them zeros now", report.changed_pages,
                              report.zeroed_pages);
  if (!options.dry_run) {
    session.talk << fmt::format("; {} is at version {}, {} new, stored in {}", version.image,
                                report.commit.number, show_bytes(report.commit.version.new_bytes),
                                show_bytes(report.commit.version.stored_bytes));
  }
  session.talk << '\n';
  return {};
}

}  // namespace samepage::cli

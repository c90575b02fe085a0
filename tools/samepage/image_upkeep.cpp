#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "imagestore/garbage_collector.h"
#include "imagestore/verifier.h"
#include "tools/samepage/image_command.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using Access = imagestore::DirOrigin::Access;
using nlohmann::json;

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

json collected_json(const imagestore::GarbageReport& report, bool dry_run) {
  return {{"dry_run", dry_run},
          {"roots", report.roots},
          {"live_objects", report.live_objects},
          {"live_bytes", report.live_bytes},
          {"buried_objects", report.buried_objects},
          {"buried_bytes", report.buried_bytes},
          {"waiting_objects", report.waiting_objects},
          {"waiting_bytes", report.waiting_bytes},
          {"dug_up_objects", report.dug_up_objects},
          {"swept_objects", report.swept_objects},
          {"swept_bytes", report.swept_bytes},
          {"foreign_objects", report.foreign_objects}};
}

void print_collected(const imagestore::GarbageReport& report, const ImageOptions& options,
                     Session& session) {
  const char* const would = options.dry_run ? "would be " : "";
  session.out << fmt::format("{} versions use {} objects, {}\n", report.roots, report.live_objects,
                             show_bytes(report.live_bytes));
  session.out << fmt::format("{} objects, {}, {}removed\n", report.swept_objects,
                             show_bytes(report.swept_bytes), would);
  session.out << fmt::format(
      "{} objects, {}, {}marked as unused; {} objects, {}, were marked before\n",
      report.buried_objects, show_bytes(report.buried_bytes), would, report.waiting_objects,
      show_bytes(report.waiting_bytes));
  if (report.buried_objects + report.waiting_objects > 0) {
    session.talk << fmt::format("marked objects go {:g} hours after they were marked\n",
                                options.grace_hours);
  }
  if (report.foreign_objects > 0) {
    session.out << fmt::format("{} objects of other sharing domains were left alone\n",
                               report.foreign_objects);
  }
}

}  // namespace

Result<void> verify_images(Session& session, const ImageOptions& options) {
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

Result<void> collect_image_garbage(Session& session, const ImageOptions& options) {
  const auto store = TRY(open_store(options, Access::kWrite));
  Result<imagestore::GarbageReport> collected = fail(Errc::kInvalid, "not run");
  {
    ProgressReport progress(session, "gc");
    const auto grace = std::chrono::duration_cast<std::chrono::seconds>(
        std::chrono::duration<double, std::ratio<3600>>(options.grace_hours));
    collected = collect_garbage(
        *store, {.grace = grace, .dry_run = options.dry_run, .on_progress = std::ref(progress)},
        SystemClock());
  }
  const auto report = TRY(std::move(collected));
  if (session.json) {
    session.out << collected_json(report, options.dry_run).dump() << '\n';
  } else {
    print_collected(report, options, session);
  }
  return {};
}

}  // namespace samepage::cli

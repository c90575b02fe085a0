#include <chrono>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "imagestore/clone.h"
#include "imagestore/diff.h"
#include "tools/samepage/image_command.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using Access = imagestore::DirOrigin::Access;
using Align = Table::Align;
using imagestore::Image;
using imagestore::ImageVersion;
using imagestore::PageRange;
using nlohmann::json;

std::chrono::sys_seconds today() {
  return std::chrono::floor<std::chrono::seconds>(SystemClock().today());
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

}  // namespace

Result<void> list_images(Session& session, const ImageOptions& options) {
  const auto store = TRY(open_store(options, Access::kRead));
  const std::vector<Image> images = TRY(store->catalog().list());
  if (options.names) {
    for (const Image& image : images) session.out << image.name << '\n';
    return {};
  }
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

Result<void> show_image(Session& session, const ImageOptions& options) {
  const auto store = TRY(open_store(options, Access::kRead));
  const Image image = TRY(store->catalog().find(options.name));
  json rows = json::array();
  Table table({{"VERSION", Align::kRight},
               {"SIZE", Align::kRight},
               {"DATA", Align::kRight},
               {"NEW", Align::kRight},
               {"STORED", Align::kRight},
               {"FROM"},
               {"SINCE"},
               {"ID"},
               {"USED BY"}});
  for (const ImageVersion& version : TRY(store->catalog().versions(options.name))) {
    const auto holders = TRY(store->catalog().holders(version.id, today()));
    json row = version_json(version);
    row.update({{"number", version.number},
                {"is_head", version.number == image.head.number},
                {"holders", holders}});
    rows.push_back(std::move(row));
    table.add_row({std::to_string(version.number), show_bytes(version.size_bytes),
                   show_bytes(version.data_bytes), show_bytes(version.new_bytes),
                   show_bytes(version.stored_bytes), version.source_format,
                   show_time(version.imported_at), to_hex(version.id).substr(0, 12),
                   joined(holders)});
  }
  if (session.json) {
    const json body = {{"name", image.name},
                       {"sharing_domain", image.sharing_domain},
                       {"versions", std::move(rows)}};
    session.out << body.dump() << '\n';
  } else {
    table.print(session.out, session.out_width);
  }
  return {};
}

Result<void> clone_version(Session& session, const ImageOptions& options) {
  const auto source = TRY(parse_version_name(options.name));
  const auto store = TRY(open_store(options, Access::kWrite));
  const ImageVersion version = TRY(imagestore::clone_image(
      *store, {.source = source.image, .number = source.number, .name = options.other},
      SystemClock()));
  if (session.json) {
    json body = version_json(version);
    body["name"] = options.other;
    session.out << body.dump() << '\n';
  } else {
    session.talk << "cloned " << printable(options.name) << " as " << printable(options.other)
                 << '\n';
  }
  return {};
}

Result<void> diff_images(Session& session, const ImageOptions& options) {
  const auto before = TRY(parse_version_name(options.name));
  const auto after = TRY(parse_version_name(options.other));
  const auto store = TRY(open_store(options, Access::kRead));
  const auto find = [&](const VersionName& name) -> Result<imagestore::VersionId> {
    TRY(store->find_image(name.image));
    return TRY(store->catalog().version(name.image, name.number)).id;
  };
  json ranges = json::array();
  const auto one = TRY(find(before));
  const auto other = TRY(find(after));
  const auto report = TRY(
      imagestore::diff_versions(*store, one, other, [&](const PageRange& range) -> Result<void> {
        if (session.json) {
          ranges.push_back({{"first_page", range.first}, {"pages", range.count}});
        } else {
          session.out << fmt::format("{} {}\n", range.first, range.count);
        }
        return {};
      }));
  if (session.json) {
    const json body = {{"size_before", report.size_before},
                       {"size_after", report.size_after},
                       {"pages", report.pages},
                       {"zeroed", report.zeroed},
                       {"written", report.written},
                       {"ranges", std::move(ranges)}};
    session.out << body.dump() << '\n';
  } else {
    session.talk << fmt::format("{} pages of 4 KiB differ: {} were zeros before, {} are now\n",
                                report.pages, report.written, report.zeroed);
  }
  return {};
}

Result<void> remove_image(Session& session, const ImageOptions& options) {
  const auto named = TRY(parse_version_name(options.name));
  const auto store = TRY(open_store(options, Access::kWrite));
  if (named.number == 0) {
    TRY(store->catalog().remove(named.image, today()));
  } else {
    TRY(store->catalog().remove_version(named.image, named.number, today()));
  }
  if (session.json) {
    session.out << json{{"removed", options.name}}.dump() << '\n';
  } else {
    session.talk << "removed " << printable(options.name)
                 << "; `samepage image gc` frees what nothing else uses\n";
  }
  return {};
}

}  // namespace samepage::cli

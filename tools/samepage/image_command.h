#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "core/result.h"
#include "imagestore/image_store.h"
#include "imagestore/importer.h"
#include "tools/samepage/interrupts.h"
#include "tools/samepage/progress_bar.h"
#include "tools/samepage/subcommands.h"

namespace samepage::cli {

/// What the subcommands of `samepage image` are given; each uses its part.
struct ImageOptions {
  std::string store = "/var/lib/samepage/store";
  std::string origin = "dir:";
  std::string ceph_conf = "/etc/ceph/ceph.conf";
  std::string file;
  std::string name;
  std::string other;
  std::string format;
  std::string like;
  bool follow_backing = false;
  bool dry_run = false;
  bool names = false;
  double grace_hours = 24;
};

/// NAME, or NAME@VERSION; version 0 stands for the newest.
struct VersionName {
  std::string image;
  std::uint64_t number = 0;
};

/// kInvalid: what follows the @ is no version's number.
Result<VersionName> parse_version_name(const std::string& text);

/// --store, --origin and --ceph-conf, which say where the store is. `options` outlives the command.
void add_store_options(CLI::App& command, ImageOptions& options);

Result<std::unique_ptr<imagestore::ImageStore>> open_store(const ImageOptions& options,
                                                           imagestore::DirOrigin::Access access);

nlohmann::json version_json(const imagestore::ImageVersion& version);

std::string show_bytes(std::uint64_t bytes);
std::string show_time(std::chrono::sys_seconds time);
double seconds_since(std::chrono::steady_clock::time_point start);

/// A bar with the pace, for as long as nobody presses Ctrl-C.
class ProgressReport {
 public:
  ProgressReport(Session& session, std::string label);

  bool operator()(const imagestore::ImportProgress& progress);

 private:
  ProgressBar bar_;
  std::string label_;
  Interrupts interrupts_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Files in and out (image_files.cpp).
Result<void> import_file(Session& session, const ImageOptions& options);
Result<void> export_file(Session& session, const ImageOptions& options);
Result<void> commit_file(Session& session, const ImageOptions& options);

// Images and their versions (image_versions.cpp).
Result<void> list_images(Session& session, const ImageOptions& options);
Result<void> show_image(Session& session, const ImageOptions& options);
Result<void> clone_version(Session& session, const ImageOptions& options);
Result<void> diff_images(Session& session, const ImageOptions& options);
Result<void> remove_image(Session& session, const ImageOptions& options);

// The store as a whole (image_upkeep.cpp).
Result<void> verify_images(Session& session, const ImageOptions& options);
Result<void> collect_image_garbage(Session& session, const ImageOptions& options);

}  // namespace samepage::cli

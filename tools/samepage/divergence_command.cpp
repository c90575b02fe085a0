#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <system_error>
#include <utility>

#include <CLI/CLI.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "core/kvm.h"
#include "core/page.h"
#include "imagestore/image_reader.h"
#include "tools/samepage/divergence.h"
#include "tools/samepage/divergence_view.h"
#include "tools/samepage/image_command.h"
#include "tools/samepage/image_kernel.h"
#include "tools/samepage/interrupts.h"
#include "tools/samepage/progress_bar.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using nlohmann::json;

constexpr std::uint64_t kReadPages = 256;
constexpr std::uint64_t kMemoryMibMin = 32;
constexpr unsigned kBootsMax = 32;
constexpr double kAtUsual = 20;

struct DivergenceOptions {
  ImageOptions store;
  std::string image;
  DivergencePlan plan;
  std::vector<std::string> settings;
  std::string accelerator;
  std::string plot;
  std::size_t names = 20;
  bool dry_run = false;
};

/// What to boot from, for as long as it lives.
struct BootFiles {
  Fd disk;
  ImageKernel kernel;
};

/// What needs emulation: QEMU counts instructions, and logs blocks, only there.
bool needs_emulation(const DivergencePlan& plan) {
  return plan.blocks > 0 ||
         std::ranges::any_of(plan.sets, [](const auto& set) { return set.fixed_clock; });
}

Result<bool> choose_kvm(const DivergenceOptions& options, const DivergencePlan& plan) {
  if (options.accelerator.empty()) return has_kvm() && !needs_emulation(plan);
  if (options.accelerator == "tcg") return false;
  if (options.accelerator != "kvm") {
    return fail(Errc::kInvalid, "--accel is kvm or tcg, not " + options.accelerator);
  }
  if (needs_emulation(plan)) {
    return fail(Errc::kInvalid,
                "fixed-clock and --executed need --accel tcg: only an emulated "
                "machine counts what it executes");
  }
  if (!has_kvm()) return fail(Errc::kInvalid, "no /dev/kvm that may be opened; use --accel tcg");
  return true;
}

Result<DivergencePlan> plan_of(const DivergenceOptions& options) {
  DivergencePlan plan = options.plan;
  std::vector<DivergenceSetting> settings;
  for (const std::string& name : options.settings) settings.push_back(TRY(parse_setting(name)));
  plan.sets = sets_of(settings);
  if (options.image.empty() && plan.machine.kernel.empty()) {
    return fail(Errc::kInvalid, "nothing to boot: name an IMAGE of the store, or a --kernel");
  }
  if (plan.boots < 2 || plan.boots > kBootsMax) {
    return fail(Errc::kInvalid, fmt::format("--boots is from 2 to {}", kBootsMax));
  }
  if (plan.machine.memory_mib < kMemoryMibMin) {
    return fail(Errc::kInvalid, fmt::format("--memory is {} MiB at least", kMemoryMibMin));
  }
  if (plan.at_s.empty() && plan.ready_when.empty()) plan.at_s = {kAtUsual};
  std::ranges::sort(plan.at_s);
  if (!plan.at_s.empty() && plan.at_s.back() > plan.time_max_s) {
    return fail(Errc::kInvalid, "--at is beyond --time-max");
  }
  plan.machine.has_kvm = TRY(choose_kvm(options, plan));
  return plan;
}

/// The kernel's command line is ours to say only when the kernel is booted directly.
bool needs_kernel(const DivergencePlan& plan) {
  return plan.machine.kernel.empty() &&
         (plan.blocks > 0 || !plan.machine.command_line.empty() ||
          std::ranges::any_of(plan.sets, [](const auto& set) { return set.nokaslr; }));
}

/// The image's pages as a raw file without a name.
Result<Fd> copy_image(const DivergenceOptions& options, ProgressBar& bar) {
  const VersionName version = TRY(parse_version_name(options.image));
  const auto store = TRY(open_store(options.store, imagestore::DirOrigin::Access::kRead));
  const auto reader = TRY(imagestore::ImageReader::open(*store, version.image, version.number));
  const std::string& folder = options.plan.scratch;
  Fd disk(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  const std::uint64_t pages = (reader->size_bytes() + kPageSize - 1) / kPageSize;
  if (!disk || ::ftruncate(disk.get(), static_cast<off_t>(reader->size_bytes())) != 0) {
    return fail(Errc::kIo, folder + ": " + std::generic_category().message(errno));
  }
  const Interrupts interrupts;
  std::array<std::byte, kPageSize> page{};
  for (std::uint64_t i = 0; i < pages; ++i) {
    if (i % kReadPages == 0) {
      bar.show("image", static_cast<double>(i) / static_cast<double>(pages), options.image);
      if (interrupts.count() > 0) return fail(Errc::kUnavailable, "interrupted");
    }
    if (!TRY(reader->read_page(i, page))) continue;
    const std::uint64_t left = reader->size_bytes() - i * kPageSize;
    const std::size_t size = std::min<std::uint64_t>(left, kPageSize);
    const auto offset = static_cast<off_t>(i * kPageSize);
    if (::pwrite(disk.get(), page.data(), size, offset) != static_cast<ssize_t>(size)) {
      return fail(Errc::kIo, folder + " has no room for the image (" +
                                 std::generic_category().message(errno) +
                                 "); name another folder with --scratch");
    }
  }
  return disk;
}

std::string path_of(const Fd& file) {
  return fmt::format("/proc/{}/fd/{}", ::getpid(), file.get());
}

Result<void> prepare(const DivergenceOptions& options, ProgressBar& bar, BootFiles& files,
                     DivergencePlan& plan) {
  if (!options.image.empty()) {
    files.disk = TRY(copy_image(options, bar));
    plan.machine.disk = &files.disk;
  }
  if (!needs_kernel(plan)) return {};
  files.kernel = TRY(find_image_kernel(files.disk, plan.scratch));
  plan.machine.kernel = path_of(files.kernel.kernel);
  if (files.kernel.initrd) plan.machine.initrd = path_of(files.kernel.initrd);
  const std::string& said = plan.machine.command_line;
  plan.machine.command_line = with_serial_console(said.empty() ? files.kernel.command_line : said);
  return {};
}

void say_plan(const DivergenceOptions& options, const DivergencePlan& plan, Session& session) {
  std::string sets;
  for (const DivergenceSetting& set : plan.sets) sets += (sets.empty() ? "" : ", ") + set.name;
  const std::size_t boots = plan.sets.size() * (plan.boots + (plan.blocks > 0 ? 2 : 0));
  const std::uint64_t copies = plan.boots * (plan.at_s.size() + (plan.ready_when.empty() ? 0 : 1));
  session.talk << fmt::format(
      "{} boots of {}, one after the other, {}, with {} MiB each: {} for each of the settings {}\n"
      "at most {} MiB of {} for copies of RAM{}\n",
      boots, printable(options.image.empty() ? plan.machine.kernel : options.image),
      plan.machine.has_kvm ? "with KVM" : "emulated", plan.machine.memory_mib, plan.boots, sets,
      copies * plan.machine.memory_mib, printable(plan.scratch),
      options.image.empty() ? "" : ", and the image's data");
}

Result<std::vector<DivergenceSet>> measure(const DivergenceOptions& options, DivergencePlan& plan,
                                           Session& session) {
  ProgressBar bar(session.talk, session.talk_width);
  BootFiles files;
  TRY(prepare(options, bar, files, plan));
  const Interrupts interrupts;
  std::string said;
  return measure_divergence(plan, [&](const std::string& step, double fraction) {
    if (step != std::exchange(said, step)) bar.say("booting: " + step);
    bar.show(step, fraction, plan.ready_when.empty() ? "" : printable(plan.ready_when));
    return interrupts.count() == 0;
  });
}

Result<void> show_divergence(const DivergenceOptions& options, Session& session) {
  DivergencePlan plan = TRY(plan_of(options));
  say_plan(options, plan, session);
  if (options.dry_run) return {};
  const auto sets = TRY(measure(options, plan, session));
  if (!options.plot.empty()) {
    TRY(write_divergence_plot(sets, options.plot));
    session.talk << "wrote " << printable(options.plot) << '\n';
  }
  if (!session.json) {
    print_divergence(sets, options.names, session);
    return {};
  }
  session.out << json{{"image", options.image},
                      {"memory_mib", plan.machine.memory_mib},
                      {"boots", plan.boots},
                      {"accelerator", plan.machine.has_kvm ? "kvm" : "tcg"},
                      {"sets", divergence_json(sets, options.names)}}
                     .dump()
              << '\n';
  return {};
}

void add_machine_options(CLI::App& app, DivergenceOptions& options) {
  BootMachineOptions& machine = options.plan.machine;
  app.add_option("image", options.image, "The image of the store to boot, or IMAGE@VERSION")
      ->type_name(kImageName);
  app.add_option("--memory", machine.memory_mib, "A boot's memory")
      ->type_name("MIB")
      ->capture_default_str();
  app.add_option("--vcpus", machine.vcpus, "Its processors")->type_name("N")->capture_default_str();
  app.add_option("--kernel", machine.kernel,
                 "A kernel to boot directly; the disk's loader by default")
      ->type_name(kFilePath);
  app.add_option("--initrd", machine.initrd, "That kernel's initrd")->type_name(kFilePath);
  app.add_option("--append", machine.command_line, "The kernel's command line")->type_name("TEXT");
  app.add_option("--accel", options.accelerator,
                 "kvm, or tcg for emulation; kvm by default where there is one, unless fixed-clock "
                 "or --executed is asked for")
      ->type_name("ACCELERATOR");
  add_store_options(app, options.store);
  app.add_option("--scratch", options.plan.scratch,
                 "A folder with room for copies of RAM, which have no names there")
      ->type_name(kFilePath)
      ->capture_default_str();
}

void add_measure_options(CLI::App& app, DivergenceOptions& options) {
  DivergencePlan& plan = options.plan;
  app.add_option("--boots", plan.boots, "How often to boot under each setting")
      ->type_name("K")
      ->capture_default_str();
  app.add_option("--at", plan.at_s, "When to compare, in seconds after the start; 20 by default")
      ->type_name("SECONDS,...")
      ->delimiter(',');
  app.add_option("--ready-when", plan.ready_when,
                 "Compare, too, when this appears on the serial line")
      ->type_name("PATTERN");
  app.add_option("--time-max", plan.time_max_s, "When to give a boot up")
      ->type_name("SECONDS")
      ->capture_default_str();
  app.add_option("--with", options.settings,
                 "Boot again with each of these, and with all, and say what that gains: nokaslr, "
                 "fixed-seeds, fixed-clock")
      ->type_name("SETTING,...")
      ->delimiter(',');
  app.add_option("--executed", plan.blocks,
                 "Compare, too, the first so many blocks of the kernel's code that are executed")
      ->type_name("BLOCKS");
  app.add_option("--names", options.names, "How many caches, files and processes to list")
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--plot", options.plot, "Also draw it, in SVG")->type_name(kFilePath);
  app.add_flag("--dry-run", options.dry_run, "Say what would be booted, and boot nothing");
}

}  // namespace

void add_divergence(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<DivergenceOptions>();
  CLI::App& app = subcommands.add(
      root, "divergence",
      "Boot an image several times with this machine's QEMU, without the placer, and say how alike "
      "the boots' memory is and what differs",
      [options](Session& session) { return show_divergence(*options, session); });
  add_machine_options(app, *options);
  add_measure_options(app, *options);
}

}  // namespace samepage::cli

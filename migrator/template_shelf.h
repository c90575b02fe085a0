#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/fd.h"
#include "core/mutex.h"
#include "core/result.h"
#include "migrator/template_state.h"

namespace samepage::migrator {

/// A template that lies ready on this host. Immutable; shared while it is used.
struct ShelvedTemplate {
  TemplateState state;
  std::filesystem::path folder;
  std::filesystem::path ram_file() const { return folder / state.ram_block; }
};

/// The templates whose RAM lies in files on this host, on the tmpfs where libvirt keeps the RAM
/// files of domains (memory_backing_dir in qemu.conf), and the tickets by which forks get them.
///
///     SHELF/templates/ID/pc.ram, state     a template; without `state` it is not complete
///     SHELF/forks/UUID/pc.ram              a ticket, see packaging/libvirt/qemu-hook
///     SHELF/pending/UUID                   a domain that is being made: leader or fork
///     SHELF/work/                          files of no use after a restart
///
/// Invariant: a RAM file that a fork maps has another link than the shelf's, in the fork's folder,
/// so its data lives as long as any fork does. RAM files of templates that no fork uses take at
/// most bytes_max; the ones used last stay.
/// Threads: every method may be called from any thread.
class TemplateShelf {
 public:
  struct Options {
    std::filesystem::path folder;  ///< In libvirt's memory_backing_dir.
    std::uint64_t bytes_max = std::uint64_t{4} << 30U;
  };

  /// Makes the folders, finds what lies there and removes what is not complete.
  /// kIo: the folder cannot be used.
  static Result<std::unique_ptr<TemplateShelf>> open(const Options& options);
  explicit TemplateShelf(Options options) : options_(std::move(options)) {}

  struct Entry {
    std::shared_ptr<const ShelvedTemplate> shelved;
    std::uint64_t ram_bytes = 0;  ///< That its RAM file takes.
    std::uint64_t forks = 0;      ///< That map it.
  };

  /// By name; of two of a name, the newer first.
  std::vector<Entry> list() const;

  /// By id, or by name. kNotFound.
  Result<std::shared_ptr<const ShelvedTemplate>> find(std::string_view name_or_id) const;

  /// Frees at least `bytes` of bytes_max and of the file system by removing templates that no fork
  /// uses, oldest use first. kUnavailable: there is not that much; the message has the figures.
  Result<void> make_room(std::uint64_t bytes);

  /// A folder for a template to be put into, file by file. It becomes one by keep().
  Result<std::filesystem::path> begin(const std::string& id);

  /// Completes what begin() began: the RAM file is in the folder. The state is written last.
  Result<std::shared_ptr<const ShelvedTemplate>> keep(const TemplateState& state);

  /// Takes back what begin() began, or a template; forks go on.
  void remove(const std::string& id);

  /// Links the template's RAM file for the domain that libvirt is about to start.
  Result<void> lay_ticket(const ShelvedTemplate& shelved, const VmId& vm) const;

  /// True: the hook had not taken it. Safe to repeat.
  bool take_ticket_back(const VmId& vm) const;

  enum class Maker { kLeader, kFork };
  /// Notes that a domain is being made, so that whoever comes after a crash removes it.
  Result<void> note(const VmIdentity& vm, Maker maker) const;
  void settle(const VmId& vm) const;
  struct Pending {
    VmIdentity vm;
    Maker maker = Maker::kFork;
  };
  std::vector<Pending> pending() const;

  std::filesystem::path work_folder() const { return options_.folder / "work"; }

 private:
  Result<void> scan();
  Result<void> check_file_system(std::uint64_t bytes) const;

  const Options options_;
  mutable Mutex mutex_;
  struct Slot {
    std::shared_ptr<const ShelvedTemplate> shelved;
    mutable std::chrono::steady_clock::time_point used_at;
  };
  std::map<std::string, Slot> slots_ GUARDED_BY(mutex_);  // By id.
};

/// The folder for the shelf: "samepage" in the memory_backing_dir that `qemu_conf` names, or in
/// libvirt's default one.
std::filesystem::path shelf_folder(const std::filesystem::path& qemu_conf);

}  // namespace samepage::migrator

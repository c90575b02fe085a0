#include <algorithm>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

#include "tools/samepage/api_messages.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using Align = Table::Align;

struct DiskOptions {
  std::string name;
  std::string new_name;
  std::string host;
  std::string image;
  std::string vm;
  std::uint64_t number = 0;
  std::uint64_t size_mib = 0;
  bool no_freeze = false;
  bool names = false;
};

std::string show_bytes(std::optional<double> bytes) {
  return bytes ? show_bytes_as_mib(*bytes) : "-";
}

/// One that moves or was left by a migration says so: docs/man/samepage.1.
std::string state_of(const Disk& disk) {
  if (!disk.phase.empty() && disk.phase != "here") return disk.phase;
  return disk.serves ? "served" : "away";
}

void print_disks(const std::vector<Disk>& disks, Session& session) {
  Table table({{"DISK"},
               {"HOST"},
               {"VM"},
               {"IMAGE"},
               {"SIZE", Align::kRight},
               {"WRITTEN", Align::kRight},
               {"UNCOMMITTED", Align::kRight},
               {"FETCHED", Align::kRight},
               {"STATE"}});
  for (const Disk& disk : disks) {
    table.add_row({disk.name, disk.host, disk.vm.empty() ? "-" : disk.vm,
                   fmt::format("{}@{:.0f}", disk.image, disk.number.value_or(0)),
                   show_bytes(disk.size_bytes), show_bytes(disk.written_bytes),
                   show_bytes(disk.dirty_bytes), show_bytes(disk.fetched_bytes), state_of(disk)});
  }
  table.print(session.out, session.out_width);
}

Result<void> list(Session& session, const DiskOptions& options) {
  const std::string body = TRY(session.placer.get("/disks", work_deadline()));
  const DiskList found = TRY(parse_disks(body));
  for (const auto& [host, message] : found.failed) {
    session.talk << printable(host) << " was not asked: " << printable(message) << '\n';
  }
  if (options.names) {
    for (const Disk& disk : found.disks) session.out << printable(disk.name) << '\n';
  } else if (session.json) {
    session.out << body << '\n';
  } else if (found.disks.empty()) {
    session.talk << "no host that is up has a disk; `samepage disk create` makes one\n";
  } else {
    print_disks(found.disks, session);
  }
  return {};
}

/// The path of a disk, which is looked for when the host was not given.
Result<std::string> path_of(Session& session, const DiskOptions& options) {
  std::string host = options.host;
  if (host.empty()) {
    const std::string body = TRY(session.placer.get("/disks", work_deadline()));
    const DiskList found = TRY(parse_disks(body));
    const auto same = [&](const Disk& disk) { return disk.name == options.name; };
    const auto disk = std::find_if(found.disks.begin(), found.disks.end(), same);
    if (disk == found.disks.end()) {
      return fail(Errc::kNotFound,
                  "no disk " + options.name + " on a host that is up; `samepage disk list`");
    }
    if (std::count_if(found.disks.begin(), found.disks.end(), same) > 1) {
      return fail(Errc::kInvalid, "more than one host has a disk " + options.name + ": say --host");
    }
    host = disk->host;
  }
  return "/disks/" + http::url_encoded(host) + "/" + http::url_encoded(options.name);
}

Result<void> print_disk(const std::string& body, const char* done, Session& session) {
  if (session.json) {
    session.out << body << '\n';
    return {};
  }
  const Disk disk = TRY(parse_disk(body));
  session.talk << done << ' ' << printable(disk.name) << " on " << printable(disk.host)
               << "; QEMU reaches it at\n";
  session.out << printable(disk.socket) << '\n';
  return {};
}

Result<void> create(Session& session, const DiskOptions& options) {
  const auto at = options.image.rfind('@');
  const std::string image = options.image.substr(0, at);
  const std::string number = at == std::string::npos ? std::string() : options.image.substr(at + 1);
  if (number.find_first_not_of("0123456789") != std::string::npos || number.size() > 9) {
    return fail(Errc::kInvalid, "an image's version is a number: IMAGE@3");
  }
  const std::string body = disk_object({.name = options.name,
                                        .host = options.host,
                                        .image = image,
                                        .vm = options.vm,
                                        .number = number.empty() ? 0 : std::stoul(number),
                                        .size_bytes = options.size_mib << 20U});
  const std::string answer = TRY(session.placer.send("POST", "/disks", body, work_deadline()));
  return print_disk(answer, "made", session);
}

Result<void> commit(Session& session, const DiskOptions& options) {
  const std::string path = TRY(path_of(session, options));
  const std::string body =
      text_object({{"image", options.image}, {"freeze", options.no_freeze ? "no" : "yes"}});
  const std::string answer =
      TRY(session.placer.send("POST", path + "/commit", body, work_deadline()));
  if (session.json) {
    session.out << answer << '\n';
    return {};
  }
  const DiskCommit done = TRY(parse_disk_commit(answer));
  session.talk << fmt::format("committed {:.0f} changed pages of {} as ",
                              done.changed_pages.value_or(0), printable(options.name));
  session.out << fmt::format("{}@{:.0f}", printable(done.image), done.number.value_or(0)) << '\n';
  if (done.guest_frozen) {
    session.talk << "the guest had written out its file systems\n";
  } else {
    session.talk << "crash-consistent, as after a power cut: " << printable(done.note) << '\n';
  }
  return {};
}

Result<void> clone(Session& session, const DiskOptions& options) {
  const std::string path = TRY(path_of(session, options));
  const std::string body = text_object({{"name", options.new_name}, {"vm", options.vm}});
  const std::string answer =
      TRY(session.placer.send("POST", path + "/clone", body, work_deadline()));
  return print_disk(answer, "cloned to", session);
}

Result<void> remove(Session& session, const DiskOptions& options) {
  const std::string path = TRY(path_of(session, options));
  TRY(session.placer.send("DELETE", path, "", work_deadline()));
  session.talk << "removed " << printable(options.name) << '\n';
  return {};
}

}  // namespace

void add_disk(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<DiskOptions>();
  CLI::App& disk =
      subcommands.add(root, "disk", "Give VMs disks on top of images, commit and clone them",
                      [options](Session& session) { return list(session, *options); });
  disk.require_subcommand(1);
  const auto add = [&](const char* name, const char* about, auto action) -> CLI::App& {
    return subcommands.add(disk, name, about, [options, action](Session& session) {
      return action(session, *options);
    });
  };
  const auto add_name = [&](CLI::App& command) {
    command.add_option("name", options->name, "The disk")->required()->type_name("DISK");
  };
  const auto add_host = [&](CLI::App& command) {
    command.add_option("--host", options->host, "The host that has it; looked for when not given")
        ->type_name(kHostName);
  };
  const auto add_vm = [&](CLI::App& command) {
    command.add_option("--vm", options->vm, "The VM that will use it")->type_name(kVmName);
  };

  CLI::App& created = add("create", "Make a disk on top of an image, in constant time", create);
  add_name(created);
  created.add_option("--host", options->host, "The host to make it on")
      ->required()
      ->type_name(kHostName);
  created.add_option("--image", options->image, "The image, or IMAGE@VERSION")
      ->required()
      ->type_name("IMAGE");
  created.add_option("--size-mib", options->size_mib, "Its size, in MiB; the image's without it")
      ->type_name("MIB");
  add_vm(created);

  CLI::App& listed = add("list", "List the disks", list);
  listed.add_flag("--names", options->names, "Print the names only, one a line");

  CLI::App& committed =
      add("commit", "Make what a running VM's disk is now a version of an image", commit);
  add_name(committed);
  add_host(committed);
  committed
      .add_option("--image", options->image,
                  "The image to commit to; the one with the disk's name without it")
      ->type_name("IMAGE");
  committed.add_flag("--no-freeze", options->no_freeze,
                     "Do not ask the guest to write out its file systems first");

  CLI::App& cloned = add("clone", "Make another disk that is what a disk is now", clone);
  add_name(cloned);
  cloned.add_option("new-name", options->new_name, "The new disk")->required()->type_name("NEW");
  add_host(cloned);
  add_vm(cloned);

  CLI::App& removed = add("rm", "Remove a disk and what was written to it", remove);
  add_name(removed);
  add_host(removed);
}

}  // namespace samepage::cli

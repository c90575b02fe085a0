// The nbdkit plugin `samepage`: serves the disk of one VM to QEMU over NBD. The table at the end is
// the program; what it does is imagestore/disk.h. docs/man/nbdkit-samepage-plugin.1 is its
// reference.

#define NBDKIT_API_VERSION 2

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#include <nbdkit-plugin.h>
#include <sys/prctl.h>

#include "core/log.h"
#include "core/sharing_domain.h"
#include "core/version.h"
#include "imagestore/disk.h"
#include "imagestore/disk_service.h"
#include "imagestore/domain_key.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

namespace {

using samepage::Errc;
using samepage::Result;
using samepage::imagestore::Disk;
using samepage::imagestore::DiskService;

/// What the command line says, and what serves by it. nbdkit has one plugin a process, and calls it
/// through functions without a state of their own.
struct Served {
  Disk::Options options;
  std::string control;
  std::string key_file;
  std::string domain = "default";
  std::unique_ptr<Disk> disk;
  std::unique_ptr<DiskService> service;
};

Served& served() {
  static Served one;
  return one;
}

int report(const Result<void>& result) {
  if (result) return 0;
  nbdkit_error("%s", result.error().message().c_str());
  nbdkit_set_error(served().disk && served().disk->is_full() ? ENOSPC : EIO);
  return -1;
}

int config(const char* key, const char* value) {
  const std::string name(key);
  Disk::Options& options = served().options;
  auto& store = options.source.store;
  if (name == "folder") {
    options.folder = value;
  } else if (name == "mirrors") {
    options.mirrors = value;
  } else if (name == "store") {
    store.folder = value;
  } else if (name == "origin") {
    store.origin = value;
  } else if (name == "ceph-conf") {
    store.ceph_conf = value;
  } else if (name == "image") {
    options.image = value;
  } else if (name == "agent") {
    options.source.agent_socket = value;
  } else if (name == "control") {
    served().control = value;
  } else if (name == "key") {
    served().key_file = value;
  } else if (name == "domain") {
    served().domain = value;
  } else if (name == "traces") {
    const int on = nbdkit_parse_bool(value);
    if (on < 0) return -1;
    options.traces = on != 0;
  } else if (name == "threads") {
    return nbdkit_parse_unsigned("threads", value, &options.threads);
  } else {
    nbdkit_error("unknown parameter '%s'; `nbdkit --help samepage` lists them", key);
    return -1;
  }
  return 0;
}

int config_complete() {
  Served& all = served();
  if (all.options.folder.empty() || all.options.mirrors.empty()) {
    nbdkit_error("folder= and mirrors= are needed: the disk's overlay, and the host's mirrors");
    return -1;
  }
  if (all.key_file.empty()) return 0;
  const auto key = samepage::imagestore::read_key_file(all.key_file);
  if (!key) {
    nbdkit_error("%s", key.error().message().c_str());
    return -1;
  }
  all.options.source.store.domain =
      samepage::SharingDomain{.name = all.domain, .seed = {}, .key = *key};
  return 0;
}

/// Opened here, before nbdkit says that it is ready, and after it has gone into the background:
/// threads do not survive a fork.
int after_fork() {
  // nbdkit has itself ended, unasked, with the thread that started it: a disk outlives its agent,
  // and all the more a thread of it.
  if (::prctl(PR_SET_PDEATHSIG, 0) != 0) nbdkit_debug("it will end with who started it");
  Served& all = served();
  auto disk = Disk::open(all.options);
  if (!disk) {
    nbdkit_error("%s", disk.error().message().c_str());
    return -1;
  }
  all.disk = *std::move(disk);
  if (all.control.empty()) return 0;
  auto service = DiskService::create(all.control, *all.disk);
  if (!service) {
    nbdkit_error("%s", service.error().message().c_str());
    return -1;
  }
  all.service = *std::move(service);
  return 0;
}

void cleanup() {
  served().service.reset();
  if (served().disk) {
    if (const auto flushed = served().disk->flush(); !flushed) {
      nbdkit_error("%s", flushed.error().message().c_str());
    }
  }
  served().disk.reset();
}

void* open_export(int) {
  return served().disk.get();
}

Disk& disk_of(void* handle) {
  return *static_cast<Disk*>(handle);
}

std::int64_t get_size(void* handle) {
  return static_cast<std::int64_t>(disk_of(handle).size_bytes());
}

int always(void*) {
  return 1;
}

int can_fua(void*) {
  return NBDKIT_FUA_NATIVE;
}

int can_cache(void*) {
  return NBDKIT_CACHE_NATIVE;
}

int block_size(void*, std::uint32_t* minimum, std::uint32_t* preferred, std::uint32_t* maximum) {
  *minimum = 1;
  *preferred = samepage::kPageSize;
  *maximum = UINT32_MAX;
  return 0;
}

int flush_if(void* handle, std::uint32_t flags) {
  return (flags & NBDKIT_FLAG_FUA) != 0 ? report(disk_of(handle).flush()) : 0;
}

int pread_disk(void* handle, void* bytes, std::uint32_t count, std::uint64_t offset,
               std::uint32_t) {
  return report(disk_of(handle).read(offset, {static_cast<std::byte*>(bytes), count}));
}

int pwrite_disk(void* handle, const void* bytes, std::uint32_t count, std::uint64_t offset,
                std::uint32_t flags) {
  const int done =
      report(disk_of(handle).write(offset, {static_cast<const std::byte*>(bytes), count}));
  return done != 0 ? done : flush_if(handle, flags);
}

int flush_disk(void* handle, std::uint32_t) {
  return report(disk_of(handle).flush());
}

int zero_disk(void* handle, std::uint32_t count, std::uint64_t offset, std::uint32_t flags) {
  const int done = report(disk_of(handle).zero(offset, count));
  return done != 0 ? done : flush_if(handle, flags);
}

int cache_disk(void* handle, std::uint32_t count, std::uint64_t offset, std::uint32_t) {
  disk_of(handle).prefetch(offset, count);
  return 0;
}

int extents_of(void* handle, std::uint32_t count, std::uint64_t offset, std::uint32_t flags,
               nbdkit_extents* extents) {
  const std::uint64_t end = offset + count;
  while (offset < end) {
    const Disk::Stretch stretch = disk_of(handle).stretch_at(offset, end);
    const std::uint32_t type = stretch.is_zero ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0U;
    if (nbdkit_add_extent(extents, offset, stretch.bytes, type) == -1) return -1;
    offset += stretch.bytes;
    if ((flags & NBDKIT_FLAG_REQ_ONE) != 0) break;
  }
  return 0;
}

constexpr const char* kHelp =
    "folder=FOLDER      (required) The disk's overlay.\n"
    "mirrors=FOLDER     (required) What this host has read of image versions.\n"
    "store=FOLDER       The image store.\n"
    "origin=ORIGIN      Where its objects are: dir: or rados:POOL.\n"
    "ceph-conf=FILE     The Ceph cluster's configuration.\n"
    "image=NAME         The image that the disk was made from.\n"
    "agent=SOCKET       This host's agent, which leads to the store's nodes.\n"
    "control=SOCKET     Where the agent asks for commits.\n"
    "key=FILE           The sharing domain's key; the store's own without it.\n"
    "domain=NAME        The sharing domain of that key.\n"
    "traces=BOOL        Record and follow boot traces (default: true).\n"
    "threads=N          Threads that fetch (default: 2).";

nbdkit_plugin make_plugin() {
  nbdkit_plugin plugin{};
  plugin.name = "samepage";
  plugin.longname = "Samepage disk";
  plugin.version = samepage::kVersion;
  plugin.description = "The disk of a VM on top of a version in a Samepage image store";
  plugin.config = config;
  plugin.config_complete = config_complete;
  plugin.config_help = kHelp;
  plugin.after_fork = after_fork;
  plugin.cleanup = cleanup;
  plugin.open = open_export;
  plugin.get_size = get_size;
  plugin.can_write = always;
  plugin.can_flush = always;
  plugin.can_trim = always;
  plugin.can_zero = always;
  plugin.can_fast_zero = always;
  plugin.can_fua = can_fua;
  plugin.can_multi_conn = always;
  plugin.can_extents = always;
  plugin.can_cache = can_cache;
  plugin.block_size = block_size;
  plugin.pread = pread_disk;
  plugin.pwrite = pwrite_disk;
  plugin.flush = flush_disk;
  plugin.trim = zero_disk;
  plugin.zero = zero_disk;
  plugin.extents = extents_of;
  plugin.cache = cache_disk;
  return plugin;
}

nbdkit_plugin plugin = make_plugin();

}  // namespace

NBDKIT_REGISTER_PLUGIN(plugin)

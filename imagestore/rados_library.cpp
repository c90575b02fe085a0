#include "imagestore/rados_library.h"

#include <mutex>

#include <dlfcn.h>

#include "core/database.h"
#include "imagestore/shared_library.h"

namespace samepage::imagestore {
namespace {

constexpr char kRados[] = "librados.so.2";
constexpr char kCephSqlite[] = "libcephsqlite.so";

struct Loaded {
  RadosLibrary library;
  std::string trouble;
};

Loaded load_rados() {
  Loaded loaded;
  SharedLibrary shared(kRados);
  if (!shared.is_loaded()) {
    loaded.trouble = "librados cannot be loaded; install it (Debian: librados2)";
    return loaded;
  }
  RadosLibrary& rados = loaded.library;
  shared.find(rados.create, "rados_create");
  shared.find(rados.conf_read_file, "rados_conf_read_file");
  shared.find(rados.conf_set, "rados_conf_set");
  shared.find(rados.connect, "rados_connect");
  shared.find(rados.shutdown, "rados_shutdown");
  shared.find(rados.cct, "rados_cct");
  shared.find(rados.ioctx_create, "rados_ioctx_create");
  shared.find(rados.ioctx_destroy, "rados_ioctx_destroy");
  shared.find(rados.ioctx_set_namespace, "rados_ioctx_set_namespace");
  shared.find(rados.read, "rados_read");
  shared.find(rados.stat, "rados_stat");
  shared.find(rados.create_write_op, "rados_create_write_op");
  shared.find(rados.release_write_op, "rados_release_write_op");
  shared.find(rados.write_op_create, "rados_write_op_create");
  shared.find(rados.write_op_assert_exists, "rados_write_op_assert_exists");
  shared.find(rados.write_op_write_full, "rados_write_op_write_full");
  shared.find(rados.write_op_setxattr, "rados_write_op_setxattr");
  shared.find(rados.write_op_cmpxattr, "rados_write_op_cmpxattr");
  shared.find(rados.write_op_remove, "rados_write_op_remove");
  shared.find(rados.aio_write_op_operate, "rados_aio_write_op_operate");
  shared.find(rados.create_read_op, "rados_create_read_op");
  shared.find(rados.release_read_op, "rados_release_read_op");
  shared.find(rados.read_op_stat, "rados_read_op_stat");
  shared.find(rados.read_op_getxattrs, "rados_read_op_getxattrs");
  shared.find(rados.aio_read_op_operate, "rados_aio_read_op_operate");
  shared.find(rados.getxattrs_next, "rados_getxattrs_next");
  shared.find(rados.getxattrs_end, "rados_getxattrs_end");
  shared.find(rados.aio_create_completion2, "rados_aio_create_completion2");
  shared.find(rados.aio_wait_for_complete, "rados_aio_wait_for_complete");
  shared.find(rados.aio_get_return_value, "rados_aio_get_return_value");
  shared.find(rados.aio_release, "rados_aio_release");
  shared.find(rados.nobjects_list_open, "rados_nobjects_list_open");
  shared.find(rados.nobjects_list_next, "rados_nobjects_list_next");
  shared.find(rados.nobjects_list_close, "rados_nobjects_list_close");
  loaded.trouble = shared.lacks();
  return loaded;
}

}  // namespace

Result<const RadosLibrary*> RadosLibrary::load() {
  static const Loaded loaded = load_rados();
  if (!loaded.trouble.empty()) return fail(Errc::kUnavailable, loaded.trouble);
  return &loaded.library;
}

Result<void> load_ceph_sqlite(rados_config_t cct) {
  static std::mutex mutex;
  static bool is_loaded = false;
  const std::lock_guard lock(mutex);
  if (!is_loaded) {
    if (auto loaded = Database::load_extension(kCephSqlite); !loaded) {
      return fail(Errc::kUnavailable,
                  loaded.error().message() + "; install it (Debian: libsqlite3-mod-ceph)");
    }
    is_loaded = true;
  }
  // The context that files opened from now on use; Ceph's <libcephsqlite.h> is in no Debian
  // package.
  using SetContext = int (*)(rados_config_t, char**);
  void* const handle = ::dlopen(kCephSqlite, RTLD_NOW | RTLD_LOCAL);
  const auto set_context = handle == nullptr
                               ? nullptr
                               : reinterpret_cast<SetContext>(::dlsym(handle, "cephsqlite_setcct"));
  if (set_context == nullptr || set_context(cct, nullptr) != 0) {
    return fail(Errc::kUnavailable, "libcephsqlite does not take a connection");
  }
  return {};
}

}  // namespace samepage::imagestore

#pragma once

#include <string>

#include <rados/librados.h>

#include "core/result.h"

namespace samepage::imagestore {

/// What the store uses of librados, loaded when the first pool is opened and never unloaded: only
/// stores in Ceph need it.
struct RadosLibrary {
  decltype(&::rados_create) create = nullptr;
  decltype(&::rados_conf_read_file) conf_read_file = nullptr;
  decltype(&::rados_conf_set) conf_set = nullptr;
  decltype(&::rados_connect) connect = nullptr;
  decltype(&::rados_shutdown) shutdown = nullptr;
  decltype(&::rados_cct) cct = nullptr;
  decltype(&::rados_ioctx_create) ioctx_create = nullptr;
  decltype(&::rados_ioctx_destroy) ioctx_destroy = nullptr;
  decltype(&::rados_ioctx_set_namespace) ioctx_set_namespace = nullptr;
  decltype(&::rados_read) read = nullptr;
  decltype(&::rados_stat) stat = nullptr;
  decltype(&::rados_create_write_op) create_write_op = nullptr;
  decltype(&::rados_release_write_op) release_write_op = nullptr;
  decltype(&::rados_write_op_create) write_op_create = nullptr;
  decltype(&::rados_write_op_assert_exists) write_op_assert_exists = nullptr;
  decltype(&::rados_write_op_write_full) write_op_write_full = nullptr;
  decltype(&::rados_write_op_setxattr) write_op_setxattr = nullptr;
  decltype(&::rados_write_op_cmpxattr) write_op_cmpxattr = nullptr;
  decltype(&::rados_write_op_remove) write_op_remove = nullptr;
  decltype(&::rados_aio_write_op_operate) aio_write_op_operate = nullptr;
  decltype(&::rados_create_read_op) create_read_op = nullptr;
  decltype(&::rados_release_read_op) release_read_op = nullptr;
  decltype(&::rados_read_op_stat) read_op_stat = nullptr;
  decltype(&::rados_read_op_getxattrs) read_op_getxattrs = nullptr;
  decltype(&::rados_aio_read_op_operate) aio_read_op_operate = nullptr;
  decltype(&::rados_getxattrs_next) getxattrs_next = nullptr;
  decltype(&::rados_getxattrs_end) getxattrs_end = nullptr;
  decltype(&::rados_aio_create_completion2) aio_create_completion2 = nullptr;
  decltype(&::rados_aio_wait_for_complete) aio_wait_for_complete = nullptr;
  decltype(&::rados_aio_get_return_value) aio_get_return_value = nullptr;
  decltype(&::rados_aio_release) aio_release = nullptr;
  decltype(&::rados_nobjects_list_open) nobjects_list_open = nullptr;
  decltype(&::rados_nobjects_list_next) nobjects_list_next = nullptr;
  decltype(&::rados_nobjects_list_close) nobjects_list_close = nullptr;

  /// kUnavailable: it is not installed on this host; the message says what to install.
  static Result<const RadosLibrary*> load();
};

/// Has SQLite keep files in RADOS (its file system "ceph") through the connection `cct`.
/// kUnavailable: libcephsqlite is not installed.
Result<void> load_ceph_sqlite(rados_config_t cct);

}  // namespace samepage::imagestore

#pragma once

#include <cstdint>
#include <span>
#include <string>

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

#include "core/handle.h"
#include "core/result.h"

namespace samepage::imagestore {

/// Closes any of libfabric's objects, all of which begin with a `fid`.
template <class T>
void close_fid(T* object) {
  fi_close(&object->fid);
}

template <class T>
using FidHandle = Handle<T, close_fid<T>>;

void free_ofi_info(fi_info* info);

using OfiInfo = Handle<fi_info, free_ofi_info>;
using OfiRegion = FidHandle<fid_mr>;

/// One libfabric endpoint and what it stands on, for a server or a client.
///
/// libfabric is loaded when the first endpoint is opened, not linked: Debian's brings PSM's drivers
/// along, which catch signals (SIGINT and SIGTERM among them) as soon as they are loaded. The
/// signals are given back.
///
/// Members are in the order in which they depend on one another, and so come apart the other way.
struct OfiEndpoint {
  OfiInfo info;
  FidHandle<fid_fabric> fabric;
  FidHandle<fid_domain> domain;
  FidHandle<fid_av> addresses;
  FidHandle<fid_cq> completions;
  FidHandle<fid_ep> endpoint;

  struct Options {
    std::string provider;
    std::string bind_address;  ///< Empty: any.
    std::size_t operations_max = 512;
  };

  /// kUnavailable: no libfabric, or no such provider, on this host. kIo: it refused.
  static Result<OfiEndpoint> open(const Options& options);

  bool has_mode(std::uint64_t bit) const {
    return (static_cast<std::uint64_t>(info->domain_attr->mr_mode) & bit) != 0;
  }

  /// `access` is of FI_REMOTE_READ and so on. kIo: refused.
  Result<OfiRegion> register_memory(std::span<std::byte> memory, std::uint64_t access,
                                    std::uint64_t key) const;

  /// Where others reach it, as the provider writes addresses.
  Result<std::string> name() const;
};

/// libfabric's words for a negative code.
std::string ofi_text(long code);

/// kIo, with libfabric's words.
Error ofi_error(const std::string& what, long code);

}  // namespace samepage::imagestore

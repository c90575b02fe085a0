#include "imagestore/ofi_endpoint.h"

#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "imagestore/shared_library.h"

namespace samepage::imagestore {
namespace {

constexpr auto kApiVersion = FI_VERSION(1, 15);
constexpr char kLibrary[] = "libfabric.so.1";

/// libfabric 1.17 reports a read that its peer's end cut short a second time, without what it was
/// begun with, and its layer above TCP then follows a null pointer; in this mode that layer hands
/// on what it is told. libfabric reads the environment, which is written to before there are
/// threads.
[[maybe_unused]] const int kPassThrough =
    ::setenv("FI_OFI_RXM_ENABLE_PASSTHRU", "1", 0);  // NOLINT(concurrency-mt-unsafe)

/// What libfabric exports; everything else goes through its objects' tables.
struct Library {
  decltype(&::fi_getinfo) getinfo = nullptr;
  decltype(&::fi_freeinfo) freeinfo = nullptr;
  decltype(&::fi_dupinfo) dupinfo = nullptr;
  decltype(&::fi_fabric) fabric = nullptr;
  decltype(&::fi_strerror) strerror = nullptr;
  std::string trouble;
};

Library load_library() {
  constexpr std::array kCaught{SIGINT, SIGILL, SIGABRT, SIGBUS, SIGSEGV, SIGTERM};
  std::array<struct sigaction, kCaught.size()> before{};
  for (std::size_t i = 0; i < kCaught.size(); ++i) {
    ::sigaction(kCaught.at(i), nullptr, &before.at(i));
  }
  SharedLibrary shared(kLibrary);
  for (std::size_t i = 0; i < kCaught.size(); ++i) {
    ::sigaction(kCaught.at(i), &before.at(i), nullptr);
  }
  Library library;
  if (!shared.is_loaded()) {
    library.trouble = "libfabric cannot be loaded (Debian: libfabric1)";
    return library;
  }
  shared.find(library.getinfo, "fi_getinfo");
  shared.find(library.freeinfo, "fi_freeinfo");
  shared.find(library.dupinfo, "fi_dupinfo");
  shared.find(library.fabric, "fi_fabric");
  shared.find(library.strerror, "fi_strerror");
  library.trouble = shared.lacks();
  return library;
}

/// Never unloaded: its providers keep threads.
const Library& library() {
  static const Library loaded = load_library();
  return loaded;
}

Result<OfiInfo> find_provider(const OfiEndpoint::Options& options) {
  if (!library().trouble.empty()) return fail(Errc::kUnavailable, library().trouble);
  const OfiInfo hints(library().dupinfo(nullptr));
  hints->caps = FI_RMA | FI_READ | FI_WRITE | FI_REMOTE_READ | FI_REMOTE_WRITE;
  hints->mode = FI_CONTEXT | FI_CONTEXT2;
  hints->ep_attr->type = FI_EP_RDM;
  hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
  hints->domain_attr->threading = FI_THREAD_SAFE;
  hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
  hints->tx_attr->size = options.operations_max;
  hints->fabric_attr->prov_name = ::strdup(options.provider.c_str());

  fi_info* found = nullptr;
  const bool is_bound = !options.bind_address.empty();
  const int code = library().getinfo(kApiVersion, is_bound ? options.bind_address.c_str() : nullptr,
                                     nullptr, is_bound ? FI_SOURCE : 0, hints.get(), &found);
  if (code != 0) {
    return fail(Errc::kUnavailable, "libfabric has no provider " + options.provider + " for \"" +
                                        options.bind_address + "\": " + ofi_text(code));
  }
  return OfiInfo(found);
}

}  // namespace

void free_ofi_info(fi_info* info) {
  library().freeinfo(info);
}

std::string ofi_text(long code) {
  return library().strerror(static_cast<int>(-code));
}

Error ofi_error(const std::string& what, long code) {
  return {Errc::kIo, what + ": " + ofi_text(code)};
}

Result<OfiEndpoint> OfiEndpoint::open(const Options& options) {
  OfiEndpoint opened;
  opened.info = TRY(find_provider(options));

  fid_fabric* fabric = nullptr;
  if (const int code = library().fabric(opened.info->fabric_attr, &fabric, nullptr); code != 0) {
    return tl::unexpected(ofi_error("open a fabric", code));
  }
  opened.fabric.reset(fabric);
  fid_domain* domain = nullptr;
  if (const int code = fi_domain(fabric, opened.info.get(), &domain, nullptr); code != 0) {
    return tl::unexpected(ofi_error("open a fabric's domain", code));
  }
  opened.domain.reset(domain);

  fi_av_attr table{};
  table.type = FI_AV_TABLE;
  fid_av* addresses = nullptr;
  if (const int code = fi_av_open(domain, &table, &addresses, nullptr); code != 0) {
    return tl::unexpected(ofi_error("open an address table", code));
  }
  opened.addresses.reset(addresses);

  fi_cq_attr queue{};
  queue.format = FI_CQ_FORMAT_CONTEXT;
  queue.size = 2 * options.operations_max;
  queue.wait_obj = FI_WAIT_UNSPEC;
  fid_cq* completions = nullptr;
  if (const int code = fi_cq_open(domain, &queue, &completions, nullptr); code != 0) {
    return tl::unexpected(ofi_error("open a completion queue", code));
  }
  opened.completions.reset(completions);

  fid_ep* endpoint = nullptr;
  if (const int code = fi_endpoint(domain, opened.info.get(), &endpoint, nullptr); code != 0) {
    return tl::unexpected(ofi_error("open an endpoint", code));
  }
  opened.endpoint.reset(endpoint);
  int code = fi_ep_bind(endpoint, &addresses->fid, 0);
  if (code == 0) code = fi_ep_bind(endpoint, &completions->fid, FI_TRANSMIT | FI_RECV);
  if (code == 0) code = fi_enable(endpoint);
  if (code != 0) return tl::unexpected(ofi_error("enable an endpoint", code));
  return opened;
}

Result<OfiRegion> OfiEndpoint::register_memory(std::span<std::byte> memory, std::uint64_t access,
                                               std::uint64_t key) const {
  fid_mr* region = nullptr;
  const int code =
      fi_mr_reg(domain.get(), memory.data(), memory.size(), access, 0, key, 0, &region, nullptr);
  if (code != 0) return tl::unexpected(ofi_error("register memory", code));
  return OfiRegion(region);
}

Result<std::string> OfiEndpoint::name() const {
  std::array<char, 128> address{};
  std::size_t size = address.size();
  const int code = fi_getname(&endpoint->fid, address.data(), &size);
  if (code != 0) return tl::unexpected(ofi_error("name an endpoint", code));
  return std::string(address.data(), size);
}

}  // namespace samepage::imagestore

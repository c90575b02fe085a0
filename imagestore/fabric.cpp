#include "imagestore/fabric.h"

#include <span>
#include <utility>

#include "core/random_bytes.h"
#include "imagestore/ofi_fabric.h"
#include "imagestore/shm_fabric.h"

namespace samepage::imagestore {

Result<void> RemoteMemory::check_range(std::uint64_t offset, std::size_t size) const {
  if (size <= bytes_ && offset <= bytes_ - size) return {};
  return fail(Errc::kInvalid, "the range at " + std::to_string(offset) + " of " +
                                  std::to_string(size) + " bytes lies outside of the memory");
}

Result<std::unique_ptr<RemoteMemory>> open_remote(FabricTicket ticket, FabricAccess access,
                                                  Deadline expires, const Clock& clock) {
  if (ticket.fabric == kShmFabric) {
    return open_shm(std::move(ticket), access, expires, clock);
  }
  if (ticket.fabric == kOfiFabric) return open_ofi(ticket, access, expires, clock);
  return fail(Errc::kInvalid, "this program knows no fabric \"" + ticket.fabric + "\"");
}

Result<std::uint64_t> random_key() {
  std::uint64_t key = 0;
  while (key == 0) TRY(fill_random(std::as_writable_bytes(std::span(&key, 1))));
  return key;
}

}  // namespace samepage::imagestore

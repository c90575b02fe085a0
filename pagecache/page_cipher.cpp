#include "pagecache/page_cipher.h"

#include <cstring>
#include <span>
#include <utility>

#include <openssl/evp.h>
#include <sys/mman.h>

#include "core/check.h"
#include "core/handle.h"
#include "core/random_bytes.h"

namespace samepage::pagecache {
namespace {

using CipherContext = Handle<EVP_CIPHER_CTX, EVP_CIPHER_CTX_free>;

const EVP_CIPHER* xts() {
  static const EVP_CIPHER* const cipher = EVP_CIPHER_fetch(nullptr, "AES-256-XTS", nullptr);
  return cipher;
}

}  // namespace

/// One direction, over any number of pages.
class PageCipher::Pass {
 public:
  Pass(const Key& key, bool encrypts) : encrypts_(encrypts), context_(EVP_CIPHER_CTX_new()) {
    good_ = context_ && EVP_CipherInit_ex(context_.get(), xts(), nullptr, key.bytes.data(), nullptr,
                                          encrypts_ ? 1 : 0) == 1;
  }

  Result<void> page(std::uint64_t number, const std::byte* from, std::byte* to) {
    std::array<unsigned char, 16> sector{};
    std::memcpy(sector.data(), &number, sizeof(number));
    int size = 0;
    good_ = good_ &&
            EVP_CipherInit_ex(context_.get(), nullptr, nullptr, nullptr, sector.data(), -1) == 1 &&
            EVP_CipherUpdate(context_.get(), reinterpret_cast<unsigned char*>(to), &size,
                             reinterpret_cast<const unsigned char*>(from), kPageSize) == 1 &&
            size == static_cast<int>(kPageSize);
    if (!good_) return fail(Errc::kIo, "AES-256-XTS failed");
    return {};
  }

 private:
  const bool encrypts_;
  CipherContext context_;
  bool good_ = false;
};

Result<std::unique_ptr<PageCipher>> PageCipher::create() {
  if (xts() == nullptr) return fail(Errc::kIo, "OpenSSL has no AES-256-XTS here");
  std::unique_ptr<PageCipher> cipher(new PageCipher());
  cipher->key_ = std::make_unique<Key>();
  Key& key = *cipher->key_;
  if (::mlock(&key, sizeof(key)) != 0) return fail(Errc::kIo, "a key's memory cannot be locked");
  TRY(fill_random(std::as_writable_bytes(std::span(key.bytes))));
  return cipher;
}

PageCipher::~PageCipher() {
  if (!key_) return;
  ::explicit_bzero(key_.get(), sizeof(Key));
  static_cast<void>(::munlock(key_.get(), sizeof(Key)));
}

Result<void> PageCipher::encrypt(std::uint64_t first, std::span<const std::byte> from,
                                 std::span<std::byte> to) const {
  CHECK(from.size() == to.size());
  CHECK(from.size() % kPageSize == 0);
  Pass pass(*key_, true);
  for (std::size_t at = 0; at < from.size(); at += kPageSize) {
    TRY(pass.page(first + at / kPageSize, &from[at], &to[at]));
  }
  return {};
}

Result<void> PageCipher::decrypt(std::uint64_t first, std::span<std::byte> pages) const {
  CHECK(pages.size() % kPageSize == 0);
  Pass pass(*key_, false);
  for (std::size_t at = 0; at < pages.size(); at += kPageSize) {
    TRY(pass.page(first + at / kPageSize, &pages[at], &pages[at]));
  }
  return {};
}

}  // namespace samepage::pagecache

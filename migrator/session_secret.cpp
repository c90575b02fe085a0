#include "migrator/session_secret.h"

#include <string_view>

namespace samepage::migrator {
namespace {

DigestKey derive(const SessionSecret& secret, std::string_view use) {
  StreamMac mac(DigestKey{secret.bytes});
  mac.update(std::as_bytes(std::span(use)));
  return {mac.current().bytes};
}

}  // namespace

DigestKey stream_mac_key(const SessionSecret& secret) {
  return derive(secret, "samepage migration: stream mac v1");
}

DigestKey tls_pre_shared_key(const SessionSecret& secret) {
  return derive(secret, "samepage migration: tls psk v1");
}

}  // namespace samepage::migrator

#include "placer/registry.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <span>

#include "core/curve_keys.h"
#include "core/random_bytes.h"
#include "placer/stored_time.h"

namespace samepage::placer {
namespace {

constexpr std::size_t kNameMax = 63;

bool is_name(std::string_view name) {
  const auto is_allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_';
  };
  return !name.empty() && name.size() <= kNameMax &&
         std::all_of(name.begin(), name.end(), is_allowed);
}

Result<void> check_name(std::string_view name) {
  if (is_name(name)) return {};
  return fail(Errc::kInvalid, "a name has 1 to 63 letters, digits, dots, hyphens or underscores");
}

Result<SharingDomain> make_domain(const std::string& name) {
  SharingDomain domain;
  domain.name = name;
  TRY(fill_random(domain.key.bytes));
  TRY(fill_random(std::as_writable_bytes(std::span(&domain.seed.value, 1))));
  return domain;
}

Result<SharingDomain> read_domain(const Statement& row) {
  SharingDomain domain;
  domain.name = row.text(0);
  domain.seed = HashSeed{std::bit_cast<std::uint64_t>(row.integer(1))};
  const std::vector<std::byte> key = row.blob(2);
  if (key.size() != domain.key.bytes.size()) {
    return fail(Errc::kCorrupt, "the key of the sharing domain " + domain.name + " has " +
                                    std::to_string(key.size()) + " bytes");
  }
  std::copy(key.begin(), key.end(), domain.key.bytes.begin());
  return domain;
}

}  // namespace

Result<std::vector<EnrolledHost>> Registry::hosts() {
  Statement row =
      TRY(database_.prepare("SELECT name, public_key, enrolled_at FROM hosts ORDER BY name"));
  TRY(row.bind({}));
  std::vector<EnrolledHost> hosts;
  while (TRY(row.step())) {
    hosts.push_back(
        {.name = row.text(0), .public_key = row.text(1), .enrolled_at = time_of(row.integer(2))});
  }
  return hosts;
}

Result<EnrolledHost> Registry::enroll(const std::string& name, const std::string& public_key) {
  TRY(check_name(name));
  if (!is_curve_key(public_key)) {
    return fail(Errc::kInvalid, "the public key is not 64 hexadecimal digits");
  }
  Transaction change = TRY(database_.begin());
  const std::vector<EnrolledHost> known = TRY(hosts());
  for (const EnrolledHost& host : known) {
    if (host.name == name && host.public_key == public_key) return host;
    if (host.name == name) {
      return fail(Errc::kInvalid, name + " is enrolled with another key; forget it first");
    }
    if (host.public_key == public_key) {
      return fail(Errc::kInvalid, "this key is enrolled as " + host.name);
    }
  }
  const EnrolledHost host{.name = name, .public_key = public_key, .enrolled_at = clock_.today()};
  Statement insert =
      TRY(database_.prepare("INSERT INTO hosts (name, public_key, enrolled_at) VALUES (?, ?, ?)"));
  TRY(insert.bind({name, public_key, stored_time(host.enrolled_at)}));
  TRY(insert.run());
  TRY(change.commit());
  return host;
}

Result<void> Registry::forget(std::string_view name) {
  Statement drop = TRY(database_.prepare("DELETE FROM hosts WHERE name = ?"));
  TRY(drop.bind({name}));
  TRY(drop.run());
  if (database_.rows_changed() == 0) {
    return fail(Errc::kNotFound,
                "no host named " + std::string(name) + "; `samepage hosts` lists them");
  }
  return {};
}

Result<std::vector<SharingDomain>> Registry::domains() {
  Statement row =
      TRY(database_.prepare("SELECT name, hash_seed, digest_key FROM domains ORDER BY name"));
  TRY(row.bind({}));
  std::vector<SharingDomain> domains;
  while (TRY(row.step())) domains.push_back(TRY(read_domain(row)));
  return domains;
}

Result<SharingDomain> Registry::domain(const std::string& name) {
  TRY(check_name(name));
  Transaction change = TRY(database_.begin());
  const std::vector<SharingDomain> known = TRY(domains());
  const auto found = std::find_if(known.begin(), known.end(),
                                  [&](const SharingDomain& domain) { return domain.name == name; });
  if (found != known.end()) return *found;
  if (known.size() >= options_.domains_max) {
    return fail(Errc::kInvalid, "there are " + std::to_string(known.size()) +
                                    " sharing domains, which is the limit");
  }

  const SharingDomain domain = TRY(make_domain(name));
  Statement insert = TRY(database_.prepare(
      "INSERT INTO domains (name, hash_seed, digest_key, created_at) VALUES (?, ?, ?, ?)"));
  TRY(insert.bind({name, std::bit_cast<std::int64_t>(domain.seed.value),
                   std::span<const std::byte>(domain.key.bytes), stored_time(clock_.today())}));
  TRY(insert.run());
  TRY(change.commit());
  return domain;
}

}  // namespace samepage::placer

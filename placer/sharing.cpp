#include "placer/sharing.h"

#include <algorithm>
#include <array>

namespace samepage::placer {
namespace {

using fingerprinter::Fingerprint;
using FingerprintsByDomain = std::map<std::string, std::vector<Fingerprint>, std::less<>>;

FingerprintsByDomain by_domain(VmSpan vms) {
  FingerprintsByDomain fingerprints;
  for (const Vm* vm : vms) {
    if (vm->fingerprint != nullptr && vm->is_mergeable)
      fingerprints[vm->sharing_domain].push_back(*vm->fingerprint);
  }
  return fingerprints;
}

void increase(Estimate& sum, const Estimate& more) {
  sum.pages += more.pages;
  sum.low += more.low;
  sum.high += more.high;
}

std::optional<PairSharing> compare(const Vm& a, const Vm& b) {
  if (a.fingerprint == nullptr || b.fingerprint == nullptr) return std::nullopt;
  if (a.sharing_domain != b.sharing_domain) return std::nullopt;
  const Estimate common = fingerprinter::overlap(*a.fingerprint, *b.fingerprint);
  if (common.low <= 0) return std::nullopt;
  return PairSharing{.a = &a, .b = &b, .common = common};
}

bool has_more_in_common(const PairSharing& left, const PairSharing& right) {
  return left.common.pages > right.common.pages;
}

}  // namespace

Estimate HostSharing::total() const {
  const auto exact = static_cast<double>(zero + within);
  return {.pages = between.pages + exact, .low = between.low + exact, .high = between.high + exact};
}

HostSharing predict_sharing(VmSpan vms) {
  HostSharing predicted;
  for (const auto& [domain, fingerprints] : by_domain(vms)) {
    const fingerprinter::Sharing part = fingerprinter::sharing(fingerprints);
    predicted.zero += part.zero;
    predicted.within += part.within;
    increase(predicted.between, part.between);
  }
  return predicted;
}

PageUnion::PageUnion(VmSpan vms) {
  for (const Vm* vm : vms) add(*vm);
}

void PageUnion::add(const Vm& vm) {
  if (vm.fingerprint == nullptr) {
    unscanned_pages_ += vm.memory_pages;
  } else {
    add(vm.sharing_domain, *vm.fingerprint);
  }
}

void PageUnion::add(const PageUnion& other) {
  unscanned_pages_ += other.unscanned_pages_;
  for (const auto& [domain, fingerprint] : other.by_domain_) add(domain, fingerprint);
}

// One by one: the union of two is estimated much faster than that of many, and just as well.
void PageUnion::add(const std::string& domain, const Fingerprint& fingerprint) {
  const auto [found, is_first] = by_domain_.try_emplace(domain, fingerprint);
  if (!is_first) found->second = Fingerprint::merge(std::array{found->second, fingerprint});
}

Estimate PageUnion::common(const Vm& vm) const {
  const auto found = by_domain_.find(vm.sharing_domain);
  if (vm.fingerprint == nullptr || found == by_domain_.end()) return {};
  return fingerprinter::overlap(*vm.fingerprint, found->second);
}

Estimate PageUnion::common(const PageUnion& other) const {
  Estimate sum;
  for (const auto& [domain, fingerprint] : by_domain_) {
    const auto found = other.by_domain_.find(domain);
    if (found != other.by_domain_.end()) {
      increase(sum, fingerprinter::overlap(fingerprint, found->second));
    }
  }
  return sum;
}

std::uint64_t PageUnion::footprint() const {
  std::uint64_t pages = unscanned_pages_;
  for (const auto& [domain, fingerprint] : by_domain_) pages += fingerprint.counts().unique;
  return pages;
}

std::uint64_t own_pages(const Vm& vm) {
  if (vm.fingerprint == nullptr) return vm.memory_pages;
  return vm.fingerprint->counts().present() - vm.fingerprint->counts().zero;
}

std::vector<PairSharing> most_alike(const Fleet& fleet, std::size_t count) {
  std::vector<PairSharing> pairs;
  for (std::size_t a = 0; a < fleet.vms.size(); ++a) {
    for (std::size_t b = a + 1; b < fleet.vms.size(); ++b) {
      const std::optional<PairSharing> pair = compare(fleet.vms[a], fleet.vms[b]);
      if (pair) pairs.push_back(*pair);
    }
  }
  std::stable_sort(pairs.begin(), pairs.end(), has_more_in_common);
  if (pairs.size() > count) pairs.resize(count);
  return pairs;
}

std::optional<PairSharing> most_alike_with(const Vm& vm, const Fleet& fleet) {
  std::optional<PairSharing> best;
  for (const Vm& other : fleet.vms) {
    if (other.id == vm.id) continue;
    const std::optional<PairSharing> pair = compare(vm, other);
    if (pair && (!best || has_more_in_common(*pair, *best))) best = pair;
  }
  return best;
}

}  // namespace samepage::placer

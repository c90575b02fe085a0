// Error and coverage of overlap estimates over many pairs of synthetic page sets, and the speed of
// comparing. Usage: fingerprint_estimate BYTES VM_GIB PAIRS SEED | fingerprint_estimate pairs
// BYTES. One line of JSON on stdout.

#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "fingerprinter/fingerprint.h"
#include "fingerprinter/overlap.h"
#include "fingerprinter/sketch_kernels.h"

namespace samepage::fingerprinter {
namespace {

// The shares that pairs of real guests have in common, from almost nothing to one image.
constexpr std::array<double, 5> kOverlaps = {0.01, 0.1, 0.37, 0.6, 0.8};

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  /// SplitMix64 (Steele, Lea and Flood 2014).
  std::uint64_t operator()() {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15U;
    z = (z ^ z >> 30U) * 0xBF58476D1CE4E5B9U;
    z = (z ^ z >> 27U) * 0x94D049BB133111EBU;
    return z ^ z >> 31U;
  }

 private:
  std::uint64_t state_;
};

void add_random(std::size_t count, Random& random, Sketch& to, Sketch* also) {
  for (std::size_t i = 0; i < count; ++i) {
    const PageHash hash{random()};
    to.add(hash);
    if (also != nullptr) also->add(hash);
  }
}

struct Sums {
  std::array<double, kOverlaps.size()> squares{};
  std::array<std::size_t, kOverlaps.size()> pairs{};
  std::size_t covered = 0;
};

Sums measure(std::size_t bytes, std::size_t pages, std::size_t pairs, std::uint64_t seed) {
  Sums sums;
  Random random(seed);
  const Sketch::Shape shape = Sketch::shape_for(pages, bytes);
  for (std::size_t i = 0; i < pairs; ++i) {
    const std::size_t kind = i % kOverlaps.size();
    const auto common = static_cast<std::size_t>(static_cast<double>(pages) * kOverlaps[kind]);
    Sketch a(shape);
    Sketch b(shape);
    add_random(common, random, a, &b);
    add_random(pages - common, random, a, nullptr);
    add_random(pages - common, random, b, nullptr);
    const PageCounts counts{.pages = pages, .unique = pages};
    const Estimate found = overlap({counts, std::move(a)}, {counts, std::move(b)});
    const double truth = static_cast<double>(common);
    const double error = (found.pages - truth) / static_cast<double>(pages);
    sums.squares[kind] += error * error;
    ++sums.pairs[kind];
    if (found.low <= truth && truth <= found.high) ++sums.covered;
  }
  return sums;
}

int estimate(std::size_t bytes, std::size_t gib, std::size_t pairs, std::uint64_t seed) {
  const std::size_t pages = gib << 18U;
  const std::size_t threads = std::max(1U, std::thread::hardware_concurrency());
  std::vector<Sums> parts(threads);
  {
    std::vector<std::jthread> workers;
    for (std::size_t i = 0; i < threads; ++i) {
      workers.emplace_back([&, i] {
        parts[i] = measure(bytes, pages, (pairs + threads - 1) / threads, seed * 1000 + i);
      });
    }
  }
  Sums sums;
  for (const Sums& part : parts) {
    for (std::size_t i = 0; i < kOverlaps.size(); ++i) {
      sums.squares[i] += part.squares[i];
      sums.pairs[i] += part.pairs[i];
    }
    sums.covered += part.covered;
  }
  double all = 0;
  double worst = 0;
  std::size_t count = 0;
  for (std::size_t i = 0; i < kOverlaps.size(); ++i) {
    all += sums.squares[i];
    count += sums.pairs[i];
    worst = std::max(worst, std::sqrt(sums.squares[i] / static_cast<double>(sums.pairs[i])));
  }
  // One real sketch tells what the bytes came to.
  Random random(seed);
  Sketch sketch(Sketch::shape_for(pages, bytes));
  add_random(pages, random, sketch, nullptr);
  const Fingerprint one({.pages = pages, .unique = pages}, std::move(sketch));
  std::printf(R"({"bytes":%zu,"vm_gib":%zu,"pairs":%zu,"rmse_pct":%.4f,"rmse_worst_overlap_pct":)"
              R"(%.4f,"interval_coverage_pct":%.2f,"serialized_bytes":%zu})"
              "\n",
              bytes, gib, count, 100 * std::sqrt(all / static_cast<double>(count)), 100 * worst,
              100.0 * static_cast<double>(sums.covered) / static_cast<double>(count),
              one.serialize().size());
  return 0;
}

/// AND and popcount of one bitmap of `bytes` with many others, the one in the cache.
double pairs_per_second(Kernel kernel, std::size_t bytes) {
  constexpr std::size_t kOthers = 512;
  Random random(1);
  std::vector<std::uint64_t> all((kOthers + 1) * bytes / 8 + 8);
  for (std::uint64_t& word : all) word = random();
  // At a cache line's begin, as Sketch has its bands.
  const std::size_t skip = (64 - reinterpret_cast<std::uintptr_t>(all.data()) % 64) % 64 / 8;
  const auto bitmap = [&](std::size_t i) {
    return std::span<const std::uint64_t>(all).subspan(skip + i * bytes / 8, bytes / 8);
  };
  double best = 0;
  std::size_t total = 0;
  for (int round = 0; round < 9; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < kOthers; ++i) {
      total += count_common(kernel, bitmap(kOthers), bitmap(i));
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    best = std::max(best, static_cast<double>(kOthers) / taken.count());
  }
  return total == 0 ? 0 : best;
}

/// Whole estimates, with their intervals, of fingerprints of 16 KiB.
double estimates_per_second() {
  constexpr std::size_t kPages = 1U << 18U;
  Random random(2);
  std::vector<Fingerprint> all;
  for (int i = 0; i < 32; ++i) {
    Sketch sketch(Sketch::shape_for(kPages, 16U << 10U));
    add_random(kPages, random, sketch, nullptr);
    all.emplace_back(PageCounts{.pages = kPages, .unique = kPages}, std::move(sketch));
  }
  double sum = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (const Fingerprint& a : all) {
    for (const Fingerprint& b : all) sum += overlap(a, b).pages;
  }
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  return sum == 0 ? 0 : static_cast<double>(all.size() * all.size()) / taken.count();
}

int compare(std::size_t bytes) {
  std::printf(R"({"bytes":%zu)", bytes);
  for (const Kernel kernel : supported_kernels()) {
    std::printf(R"(,"%s":%.0f)", std::string(to_string(kernel)).c_str(),
                pairs_per_second(kernel, bytes));
  }
  std::printf(R"(,"whole_estimates":%.0f})"
              "\n",
              estimates_per_second());
  return 0;
}

}  // namespace
}  // namespace samepage::fingerprinter

int main(int argc, char** argv) {
  const auto number = [&](int i) { return std::strtoull(argv[i], nullptr, 10); };
  if (argc == 3 && std::string(argv[1]) == "pairs") {
    return samepage::fingerprinter::compare(number(2));
  }
  if (argc == 5) {
    return samepage::fingerprinter::estimate(number(1), number(2), number(3), number(4));
  }
  std::fprintf(stderr, "usage: %s BYTES VM_GIB PAIRS SEED | pairs BYTES\n", argv[0]);
  return 2;
}

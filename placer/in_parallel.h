#pragma once

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace samepage::placer {

/// Calls `work(i)` for every i below `count`, in no order, on so many threads, this one among them;
/// returns when all is done. `work` may write only what belongs to its own i.
template <class Work>
void in_parallel(unsigned threads, std::size_t count, const Work& work) {
  constexpr std::size_t kAtOnce = 64;
  std::atomic<std::size_t> next{0};
  const auto run = [&] {
    for (;;) {
      const std::size_t begin = next.fetch_add(kAtOnce);
      if (begin >= count) return;
      for (std::size_t i = begin; i < count && i < begin + kAtOnce; ++i) work(i);
    }
  };
  std::vector<std::jthread> others;
  for (unsigned i = 1; i < threads && count > kAtOnce; ++i) others.emplace_back(run);
  run();
}

}  // namespace samepage::placer

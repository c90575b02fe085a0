// Runs a fuzz target without libFuzzer: TARGET_replay [--write FOLDER] [CORPUS FOLDER]
//
// Tries the target's seeds, the corpus's files, and $SAMEPAGE_FUZZ_RUNS (default 3000) mutations of
// both under $SAMEPAGE_FUZZ_SEED (default 1). With --write it only writes the seeds as files, for
// libFuzzer to start from.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>

#include "tests/fuzz/fuzz_target.h"

namespace {

using samepage::fuzz::Input;

std::uint64_t setting(const char* name, std::uint64_t usual) {
  const char* text = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): there is one thread.
  return text == nullptr ? usual : std::strtoull(text, nullptr, 10);
}

void try_one(const Input& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
}

std::vector<Input> read_corpus(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    paths.push_back(entry.path());
  }
  std::ranges::sort(paths);
  std::vector<Input> inputs;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    inputs.push_back(samepage::fuzz::to_input(std::as_bytes(std::span(text))));
  }
  return inputs;
}

int write_seeds(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  int number = 0;
  for (const Input& seed : fuzz_seeds()) {
    std::ofstream file(folder / ("seed-" + std::to_string(number++)), std::ios::binary);
    file.write(reinterpret_cast<const char*>(seed.data()),
               static_cast<std::streamsize>(seed.size()));
    if (!file) return 1;
  }
  return 0;
}

std::size_t below(std::size_t bound, std::mt19937_64& random) {
  return bound == 0 ? 0 : random() % bound;
}

void mutate_once(Input& input, const Input& other, std::mt19937_64& random) {
  static constexpr std::uint8_t kEdges[] = {0, 1, 0x7F, 0x80, 0xFF};
  const auto at = static_cast<std::ptrdiff_t>(below(input.size(), random));
  switch (random() % 6) {
    case 0:
      if (!input.empty()) input[static_cast<std::size_t>(at)] ^= std::byte(1U << (random() % 8));
      break;
    case 1:
      if (!input.empty()) {
        input[static_cast<std::size_t>(at)] = std::byte{kEdges[random() % std::size(kEdges)]};
      }
      break;
    case 2:
      input.resize(static_cast<std::size_t>(at));
      break;
    case 3:
      input.insert(input.begin() + at, 1 + random() % 9, std::byte(random() & 0xFFU));
      break;
    case 4:
      input.erase(
          input.begin() + at,
          input.begin() + at +
              static_cast<std::ptrdiff_t>(below(
                  std::min<std::size_t>(input.size() - static_cast<std::size_t>(at), 16), random)));
      break;
    default:
      input.insert(input.begin() + at, other.begin(),
                   other.begin() + static_cast<std::ptrdiff_t>(below(other.size(), random)));
  }
}

void replay(const std::vector<Input>& inputs) {
  static constexpr std::size_t kInputBytesMax = 256U << 10U;
  const std::uint64_t seed = setting("SAMEPAGE_FUZZ_SEED", 1);
  const std::uint64_t runs = setting("SAMEPAGE_FUZZ_RUNS", 3000);
  std::printf("inputs=%zu mutations=%lu seed=%lu\n", inputs.size(), runs, seed);
  std::fflush(stdout);
  for (const Input& input : inputs) try_one(input);
  std::mt19937_64 random(seed);
  for (std::uint64_t run = 0; run < runs; ++run) {
    Input input = inputs[random() % inputs.size()];
    for (std::uint64_t i = 0, times = 1 + random() % 4; i < times; ++i) {
      mutate_once(input, inputs[random() % inputs.size()], random);
    }
    if (input.size() > kInputBytesMax) input.resize(kInputBytesMax);
    try_one(input);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--write") return write_seeds(argv[2]);
  std::vector<Input> inputs = fuzz_seeds();
  inputs.emplace_back();
  if (argc == 2 && std::filesystem::is_directory(argv[1])) {
    for (Input& input : read_corpus(argv[1])) inputs.push_back(std::move(input));
  }
  replay(inputs);
  return 0;
}

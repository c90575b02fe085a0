#include "tools/samepage/heat_map.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tools/samepage/picture_file.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

constexpr std::size_t kVmsMax = 200;
constexpr std::size_t kFiguresVmsMax = 24;
constexpr int kSide = 44;  // Of a square, in pixels, where figures are shown.
constexpr int kSideSmall = 8;
constexpr int kMargin = 150;  // For names.

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char c : printable(text)) {
    switch (c) {
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '&':
        safe += "&amp;";
        break;
      case '"':
        safe += "&quot;";
        break;
      default:
        safe += c;
    }
  }
  return safe;
}

/// VMs, those that share most first.
std::vector<std::string> order(const Sharing& sharing) {
  std::map<std::string, double> sums;
  for (const PairSharing& pair : sharing.pairs) {
    sums[pair.a] += pair.mib.value_or(0);
    sums[pair.b] += pair.mib.value_or(0);
  }
  std::vector<std::pair<std::string, double>> sorted(sums.begin(), sums.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& x, const auto& y) { return x.second > y.second; });
  std::vector<std::string> names;
  for (const auto& [name, sum] : sorted) {
    if (names.size() < kVmsMax) names.push_back(name);
  }
  return names;
}

/// From white to a dark blue.
std::string color(double share) {
  const auto mix = [&](int from, int to) { return static_cast<int>(from + share * (to - from)); };
  return fmt::format("#{:02x}{:02x}{:02x}", mix(255, 8), mix(255, 48), mix(255, 107));
}

class Picture {
 public:
  explicit Picture(std::size_t vms)
      : side_(vms <= kFiguresVmsMax ? kSide : kSideSmall), shows_figures_(vms <= kFiguresVmsMax) {
    const int size = kMargin + side_ * static_cast<int>(vms) + 20;
    text_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{0}\" "
        "font-family=\"sans-serif\" font-size=\"{1}\">\n"
        "<title>Memory that VMs share, in MiB</title>\n"
        "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        size, shows_figures_ ? 11 : 7);
  }

  void name(std::size_t index, const std::string& vm) {
    const int at = place(index) + side_ / 2;
    text_ += fmt::format(
        "<text x=\"{0}\" y=\"{1}\" text-anchor=\"end\" dominant-baseline=\"middle\">{2}</text>\n"
        "<text transform=\"translate({1},{0}) rotate(-90)\" dominant-baseline=\"middle\">{2}"
        "</text>\n",
        kMargin - 6, at, escaped(vm));
  }

  void square(std::size_t row, std::size_t column, double mib, double share,
              const std::string& tip) {
    text_ += fmt::format(
        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\" stroke=\"white\">"
        "<title>{}</title></rect>\n",
        place(column), place(row), side_, side_, color(share), escaped(tip));
    if (!shows_figures_) return;
    text_ += fmt::format(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" dominant-baseline=\"middle\" "
        "fill=\"{}\">{:.0f}</text>\n",
        place(column) + side_ / 2, place(row) + side_ / 2, share > 0.5 ? "white" : "black", mib);
  }

  std::string finish() { return std::move(text_) + "</svg>\n"; }

 private:
  int place(std::size_t index) const { return kMargin + side_ * static_cast<int>(index); }

  const int side_;
  const bool shows_figures_;
  std::string text_;
};

}  // namespace

std::string heat_map(const Sharing& sharing) {
  const std::vector<std::string> vms = order(sharing);
  std::map<std::string, std::size_t> rows;
  for (const std::string& vm : vms) rows.emplace(vm, rows.size());
  double most = 0;
  for (const PairSharing& pair : sharing.pairs) most = std::max(most, pair.mib.value_or(0));

  Picture picture(vms.size());
  for (std::size_t i = 0; i < vms.size(); ++i) picture.name(i, vms[i]);
  for (const PairSharing& pair : sharing.pairs) {
    const auto a = rows.find(pair.a);
    const auto b = rows.find(pair.b);
    if (a == rows.end() || b == rows.end()) continue;
    const double mib = pair.mib.value_or(0);
    const double share = most > 0 ? mib / most : 0;
    const std::string tip = pair.a + " and " + pair.b + ": " + show_mib(pair.mib) + ", " +
                            show_mib_range(pair.low_mib, pair.high_mib);
    picture.square(a->second, b->second, mib, share, tip);
    picture.square(b->second, a->second, mib, share, tip);
  }
  return picture.finish();
}

Result<void> write_heat_map(const Sharing& sharing, const std::string& path) {
  return write_picture(path, heat_map(sharing));
}

}  // namespace samepage::cli

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tools/samepage/divergence_view.h"
#include "tools/samepage/picture_file.h"
#include "tools/samepage/quantity.h"

namespace samepage::cli {
namespace {

using fingerprinter::kPageKinds;
using fingerprinter::Likeness;
using fingerprinter::PageKind;

constexpr int kWidth = 960;
constexpr int kRowHeight = 210;
constexpr int kPlotHeight = 150;
constexpr int kPlotWidth = 480;
constexpr int kLeft = 60;
constexpr int kTop = 40;
constexpr int kBarsLeft = kLeft + kPlotWidth + 190;
constexpr int kBarsWidth = kWidth - kBarsLeft - 70;
constexpr std::size_t kBarsMax = 9;

struct Layer {
  const char* name;
  const char* color;
  std::uint64_t Likeness::*pages;
};
constexpr std::array<Layer, 3> kLayers = {{{"different", "#b2182b", &Likeness::different},
                                           {"elsewhere", "#92c5de", &Likeness::elsewhere},
                                           {"same address", "#2166ac", &Likeness::same_place}}};

std::string text(int x, int y, const std::string& anchor, const std::string& words) {
  return fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor, words);
}

std::string rectangle(double x, double y, double width, double height, const char* color) {
  return fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"/>\n", x, y,
      width, height, color);
}

/// A set's moments as they came to pass.
std::vector<const DivergenceMoment*> in_order(const DivergenceSet& set) {
  std::vector<const DivergenceMoment*> moments;
  for (const DivergenceMoment& moment : set.moments) moments.push_back(&moment);
  std::stable_sort(moments.begin(), moments.end(),
                   [](const auto* a, const auto* b) { return a->ran_s < b->ran_s; });
  return moments;
}

/// Columns over time, stacked.
std::string columns(const DivergenceSet& set, int top, double mib_max) {
  std::string drawn;
  const auto moments = in_order(set);
  const double step = static_cast<double>(kPlotWidth) / static_cast<double>(moments.size());
  for (std::size_t i = 0; i < moments.size(); ++i) {
    const double x = kLeft + (static_cast<double>(i) + 0.2) * step;
    double y = top + kPlotHeight;
    for (std::size_t layer = kLayers.size(); layer-- > 0;) {
      const double mib = moments[i]->mib(moments[i]->sum.all.*kLayers[layer].pages);
      const double height = mib / mib_max * kPlotHeight;
      y -= height;
      drawn += rectangle(x, y, 0.6 * step, height, kLayers[layer].color);
    }
    const int middle = static_cast<int>(x + 0.3 * step);
    drawn += text(middle, top + kPlotHeight + 14, "middle", moments[i]->name);
    drawn += text(middle, static_cast<int>(y) - 4, "middle",
                  show_mib(moments[i]->mib(moments[i]->sum.all.total())));
  }
  return drawn;
}

/// What the different pages are, the most first.
std::string bars(const DivergenceMoment& moment, int top) {
  std::vector<std::pair<double, PageKind>> kinds;
  for (std::size_t i = 0; i < kPageKinds; ++i) {
    const double mib = moment.mib(moment.sum.by_kind[i].different);
    if (mib > 0) kinds.emplace_back(mib, static_cast<PageKind>(i));
  }
  std::sort(kinds.rbegin(), kinds.rend());
  if (kinds.size() > kBarsMax) kinds.resize(kBarsMax);
  std::string drawn;
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const int y = top + static_cast<int>(i) * (kPlotHeight / static_cast<int>(kBarsMax));
    const double width = kinds[i].first / kinds.front().first * kBarsWidth;
    drawn += text(kBarsLeft - 6, y + 10, "end", std::string(name_of(kinds[i].second)));
    drawn += rectangle(kBarsLeft, y, width, 12, kLayers.front().color);
    drawn +=
        text(kBarsLeft + static_cast<int>(width) + 4, y + 10, "start", show_mib(kinds[i].first));
  }
  return drawn;
}

}  // namespace

std::string divergence_plot(std::span<const DivergenceSet> sets) {
  double mib_max = 1;
  for (const DivergenceSet& set : sets) {
    for (const DivergenceMoment& moment : set.moments) {
      mib_max = std::max(mib_max, moment.mib(moment.sum.all.total()));
    }
  }
  std::string drawn = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" "
      "font-family=\"sans-serif\" font-size=\"11\">\n<title>How alike boots are, in MiB a "
      "boot</title>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      kWidth, kTop + kRowHeight * static_cast<int>(sets.size()));
  int x = kLeft;
  for (const Layer& layer : kLayers) {
    drawn += rectangle(x, 8, 12, 12, layer.color) + text(x + 16, 18, "start", layer.name);
    x += 120;
  }
  drawn += text(kBarsLeft, 18, "start", "what differs at the last moment");
  int top = kTop + 20;
  for (const DivergenceSet& set : sets) {
    drawn += text(6, top - 18, "start", "setting: " + set.setting.name);
    drawn += columns(set, top, mib_max * 1.1) + bars(set.moments.back(), top);
    top += kRowHeight;
  }
  return drawn + "</svg>\n";
}

Result<void> write_divergence_plot(std::span<const DivergenceSet> sets, const std::string& path) {
  return write_picture(path, divergence_plot(sets));
}

}  // namespace samepage::cli

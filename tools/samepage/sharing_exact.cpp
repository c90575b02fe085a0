#include "tools/samepage/sharing_exact.h"

#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <nlohmann/json.hpp>

#include "core/fd.h"
#include "core/page.h"
#include "fingerprinter/exact_set.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using fingerprinter::ExactSet;
using nlohmann::json;
using Align = Table::Align;

double mib(std::uint64_t pages) {
  return static_cast<double>(pages) * kPageSize / (1U << 20U);
}

Result<ExactSet> read_image(const std::string& file) {
  const Fd image(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!image) return fail(Errc::kIo, file + ": " + std::generic_category().message(errno));
  auto set = ExactSet::read(image, HashSeed{});
  if (!set) return fail(set.error().code(), file + ": " + set.error().message());
  return set;
}

void print_json(std::span<const std::string> files, std::span<const ExactSet> sets,
                Session& session) {
  const fingerprinter::ExactSharing sharing = fingerprinter::exact_sharing(sets);
  json pairs = json::array();
  for (std::size_t a = 0; a < sets.size(); ++a) {
    for (std::size_t b = a + 1; b < sets.size(); ++b) {
      pairs.push_back({{"a", files[a]},
                       {"b", files[b]},
                       {"shared_mib", mib(fingerprinter::common_pages(sets[a], sets[b]))}});
    }
  }
  session.out << json{{"zero_mib", mib(sharing.zero)},
                      {"within_mib", mib(sharing.within)},
                      {"between_mib", mib(sharing.between)},
                      {"total_mib", mib(sharing.total())},
                      {"pairs", pairs}}
                     .dump()
              << '\n';
}

void print_tables(std::span<const std::string> files, std::span<const ExactSet> sets,
                  Session& session) {
  const fingerprinter::ExactSharing sharing = fingerprinter::exact_sharing(sets);
  Table sums({{"ZERO", Align::kRight},
              {"WITHIN", Align::kRight},
              {"BETWEEN", Align::kRight},
              {"SHARED", Align::kRight}});
  sums.add_row({show_mib(mib(sharing.zero)), show_mib(mib(sharing.within)),
                show_mib(mib(sharing.between)), show_mib(mib(sharing.total()))});
  sums.print(session.out, session.out_width);
  Table pairs({{"IMAGE"}, {"IMAGE"}, {"SHARED", Align::kRight}});
  for (std::size_t a = 0; a < sets.size(); ++a) {
    for (std::size_t b = a + 1; b < sets.size(); ++b) {
      pairs.add_row({printable(files[a]), printable(files[b]),
                     show_mib(mib(fingerprinter::common_pages(sets[a], sets[b])))});
    }
  }
  session.out << '\n';
  pairs.print(session.out, session.out_width);
}

}  // namespace

Result<void> show_exact_sharing(std::span<const std::string> files, Session& session) {
  std::vector<ExactSet> sets;
  for (const std::string& file : files) {
    session.talk << "reading " << printable(file) << '\n';
    sets.push_back(TRY(read_image(file)));
  }
  if (session.json) {
    print_json(files, sets, session);
  } else {
    print_tables(files, sets, session);
  }
  return {};
}

}  // namespace samepage::cli

#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tools/samepage/api_messages.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using Align = Table::Align;

struct StoreOptions {
  std::string node;
  std::string rack;
  double weight = 1;
};

void print_status(const StoreStatus& status, Session& session) {
  if (status.nodes.empty()) {
    session.talk << "no host lends the store memory; start samepaged with --store-mib\n";
    return;
  }
  Table table({{"NODE"},
               {"STATE"},
               {"RING"},
               {"SHARE", Align::kRight},
               {"RACK"},
               {"MEMORY", Align::kRight},
               {"HELD", Align::kRight},
               {"EXTENTS", Align::kRight},
               {"EVICTED", Align::kRight},
               {"LEASES", Align::kRight},
               {"REFUSED", Align::kRight},
               {"WARM", Align::kRight},
               {"REPORT", Align::kRight}});
  for (const StoreNodeStatus& node : status.nodes) {
    table.add_row({node.name, node.state, node.is_member ? "member" : "-",
                   node.is_member ? show_share(node.share, 1) : "-",
                   node.rack.empty() ? "-" : node.rack, show_bytes_as_mib(node.capacity_bytes),
                   show_bytes_as_mib(node.extent_bytes), show_count(node.extents),
                   show_count(node.evicted), show_count(node.leases), show_count(node.refused),
                   show_count(node.warm_versions), show_age(node.report_age_s)});
  }
  table.print(session.out, session.out_width);
}

Result<void> show(Session& session, const std::string& body) {
  const StoreStatus status = TRY(parse_store(body));
  if (session.json) {
    session.out << body << '\n';
  } else {
    print_status(status, session);
  }
  return {};
}

Result<void> status(Session& session) {
  return show(session, TRY(session.placer.get("/store", answer_deadline())));
}

Result<void> join(Session& session, const StoreOptions& options) {
  const nlohmann::json request = {
      {"node", options.node}, {"rack", options.rack}, {"weight", options.weight}};
  return show(session,
              TRY(session.placer.send("POST", "/store/nodes", request.dump(), answer_deadline())));
}

Result<void> leave(Session& session, const StoreOptions& options) {
  return show(session,
              TRY(session.placer.send("DELETE", "/store/nodes/" + http::url_encoded(options.node),
                                      "", answer_deadline())));
}

}  // namespace

void add_store(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<StoreOptions>();
  CLI::App& store =
      subcommands.add(root, "store", "See and change which hosts keep the image store in memory",
                      [](Session&) { return Result<void>(); });
  store.require_subcommand(1);
  subcommands.add(store, "status", "List the store's nodes, and hosts that could be ones",
                  [](Session& session) { return status(session); });

  CLI::App& joined =
      subcommands.add(store, "join", "Have a host that lends memory become a store node",
                      [options](Session& session) { return join(session, *options); });
  joined.add_option("node", options->node, "The host")->required()->type_name(kHostName);
  joined.add_option("--rack", options->rack, "What it shares its power and switch with")
      ->type_name("NAME");
  joined.add_option("--weight", options->weight, "Its share beside other nodes'")
      ->check(CLI::Range(0.01, 100.0))
      ->type_name("WEIGHT")
      ->capture_default_str();

  CLI::App& left =
      subcommands.add(store, "leave", "Have a host be a store node no more",
                      [options](Session& session) { return leave(session, *options); });
  left.add_option("node", options->node, "The host")->required()->type_name(kHostName);
}

}  // namespace samepage::cli

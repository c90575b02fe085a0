#pragma once

#include <initializer_list>
#include <vector>

#include "tools/samepage-placer/http_server.h"
#include "tools/samepage-placer/placer.h"

namespace samepage::control {

/// The routes of docs/api.md. `placer` is borrowed and outlives the server that they are given to.
std::vector<http::Route> api_routes(Placer& placer);

/// A route of the API: its handler is given the placer too.
struct ApiRoute {
  const char* method;
  const char* pattern;
  Result<http::Response> (*handler)(Placer& placer, const http::Request& request);
};
void add_routes(Placer& placer, std::vector<http::Route>& routes,
                std::initializer_list<ApiRoute> added);

// The parts of the table, one source file each.
void add_fleet_routes(Placer& placer, std::vector<http::Route>& routes);
void add_plan_routes(Placer& placer, std::vector<http::Route>& routes);
void add_standby_routes(Placer& placer, std::vector<http::Route>& routes);
void add_boot_routes(Placer& placer, std::vector<http::Route>& routes);
void add_policy_routes(Placer& placer, std::vector<http::Route>& routes);

/// The fleet as its hosts say now; one that does not answer soon counts as it was.
placer::Fleet fleet_of_now(Placer& placer, Deadline deadline);

/// A plan, as it is now. Errors as Journal's.
Result<http::Response> plan_answer(Ledger& ledger, placer::PlanId id);

/// A boot storm, as it is now.
http::Response storm_answer(const StormRecord& record);
void add_disk_routes(Placer& placer, std::vector<http::Route>& routes);
void add_event_routes(Placer& placer, std::vector<http::Route>& routes);
void add_store_routes(Placer& placer, std::vector<http::Route>& routes);

/// The Prometheus text of `/metrics`. Errors as Journal's.
Result<std::string> metrics_text(Placer& placer);

}  // namespace samepage::control

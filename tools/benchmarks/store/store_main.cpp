// The compiled part of `tools/bench store`: each subcommand measures one thing and prints a JSON
// object a line.

#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "core/bus.h"
#include "core/log.h"
#include "imagestore/disk_service.h"
#include "imagestore/extent_source.h"
#include "imagestore/overlay.h"
#include "imagestore/store_listener.h"
#include "imagestore/store_node.h"
#include "tools/benchmarks/store/clients.h"
#include "tools/benchmarks/store/limited_nodes.h"
#include "tools/benchmarks/store/store_reader.h"
#include "tools/benchmarks/store/writes.h"

namespace samepage::bench {
namespace {

using imagestore::ImageStore;

struct Arguments {
  ImageStore::Options store;
  std::string store_folder, origin = "dir:", ceph_conf;
  std::string image, name = "image", trace, socket, folder;
  std::string path, reads = "boot";
  std::vector<std::string> files;
  std::vector<int> servers;
  std::uint64_t clients = 1, count = 10'000, bytes = 1U << 20U, at_once = 0;
  std::size_t depth = 16, extent_pages = 32, nodes = 1;
  std::uint32_t chunk_bytes = 32U << 10U;
  std::uint64_t node_mib = 1'024;
  double seconds = 3;
  bool changes = false, writes = false;
};

Result<std::vector<Chunk>> chunks_of(const Arguments& arguments) {
  const auto data = [&] { return all_data(arguments.image, 32U << 10U); };
  if (arguments.reads == "boot") {
    return boot_reads(arguments.trace, std::filesystem::file_size(arguments.image),
                      arguments.chunk_bytes);
  }
  if (arguments.reads == "all") return all_data(arguments.image, arguments.chunk_bytes);
  return random_reads(TRY(data()), arguments.count, arguments.chunk_bytes, 7);
}

Result<void> serve(const Arguments& arguments) {
  const SystemClock clock;
  const auto store = TRY(ImageStore::open(arguments.store));
  imagestore::StoreNode::Options options;
  options.arena.data_bytes = arguments.node_mib << 20U;
  options.arena.use_huge_pages = true;
  options.lease_time = std::chrono::minutes(10);  // Longer than any run with a stopped server.
  const auto node = TRY(imagestore::StoreNode::create(options, {store->keys()}, clock));
  const auto listener = TRY(imagestore::StoreListener::create({.path = arguments.socket}, *node));
  std::cout << "ready" << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
  }
  return {};
}

Result<void> fill(const Arguments& arguments) {
  const SystemClock clock;
  const auto chunks = TRY(chunks_of(arguments));
  if (arguments.path == "memcached") {
    return fill_memcached(arguments.socket, arguments.image, chunks);
  }
  const auto store = TRY(ImageStore::open(arguments.store));
  const auto map = TRY(ExtentMap::open(*store, arguments.name, arguments.image));
  imagestore::OriginExtents origin(store->origin(), store->keys());
  StoreReader reader(*map, std::make_unique<imagestore::SocketControl>(arguments.socket),
                     {.keys = store->keys(), .keeper = {.upload_bytes_max = 1U << 30U}}, &origin,
                     false);
  TRY(reader.wait());
  TRY(reader.read(chunks, 16, [](double) {}));
  return reader.client().drain(std::chrono::steady_clock::now() + std::chrono::minutes(2));
}

Result<void> read(const Arguments& arguments) {
  const auto chunks = TRY(chunks_of(arguments));
  std::unique_ptr<ExtentMap> map;
  MakeReader make;
  if (arguments.path == "shm") {
    const auto store = TRY(ImageStore::open(arguments.store));
    map = TRY(ExtentMap::open(*store, arguments.name, arguments.image));
    make = [&]() -> Result<std::unique_ptr<Reader>> {
      auto reader = std::make_unique<StoreReader>(
          *map, std::make_unique<imagestore::SocketControl>(arguments.socket),
          imagestore::StoreClient::Options{.keys = map->keys(), .fetches_max = 64}, nullptr,
          arguments.reads == "random");
      TRY(reader->wait());
      return reader;
    };
  } else if (arguments.path == "memcached") {
    make = [&] { return open_memcached(arguments.socket); };
  } else if (arguments.path == "full copy" || arguments.path == "disk copy") {
    const bool is_durable = arguments.path == "disk copy";
    make = [&, is_durable] {
      return open_full_copy(arguments.image, arguments.folder, is_durable);
    };
  } else {
    make = [&] { return open_nbd(arguments.socket, arguments.writes); };
  }
  Row row = run_clients({.clients = arguments.clients,
                         .depth = arguments.depth,
                         .at_once = arguments.at_once,
                         .servers = {arguments.servers.begin(), arguments.servers.end()}},
                        make, chunks);
  row.path = arguments.path;
  row.name = (arguments.writes ? "write " : "") + arguments.reads;
  auto body = to_json(row);
  body.update({{"depth", arguments.depth}, {"chunk_bytes", arguments.chunk_bytes}});
  std::cout << body << std::endl;
  return {};
}

/// Says "leased" when it can read, waits for a line, and then reads extents one at a time.
Result<void> one_sided(const Arguments& arguments) {
  const auto chunks = TRY(chunks_of(arguments));
  const auto store = TRY(ImageStore::open(arguments.store));
  const auto map = TRY(ExtentMap::open(*store, arguments.name, arguments.image));
  StoreReader reader(*map, std::make_unique<imagestore::SocketControl>(arguments.socket),
                     {.keys = map->keys()}, nullptr, true);
  TRY(reader.wait());
  std::cout << "leased" << std::endl;
  std::string line;
  std::getline(std::cin, line);
  Row row{.path = "shm", .name = "one-sided", .clients = 1};
  const auto start = std::chrono::steady_clock::now();
  std::uint64_t reads = 0;
  const auto note = [&](double us) {
    ++reads;
    row.latencies_us.push_back(us);
  };
  while (reads < arguments.count) row.bytes += TRY(reader.read(chunks, 1, note));
  row.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  auto body = to_json(row);
  body["reads"] = reads;
  std::cout << body << std::endl;
  return {};
}

Result<void> limited(const Arguments& arguments) {
  const auto chunks = TRY(chunks_of(arguments));
  const auto store = TRY(ImageStore::open(arguments.store));
  const auto map = TRY(ExtentMap::open(*store, arguments.name, arguments.image));
  std::cout << TRY(run_limited({.nodes = arguments.nodes,
                                .clients = arguments.clients,
                                .bytes_per_s = static_cast<double>(arguments.bytes),
                                .seconds = arguments.seconds,
                                .changes = arguments.changes},
                               *map, chunks, arguments.store))
            << std::endl;
  return {};
}

Result<void> print(Result<Row> row) {
  std::cout << to_json(TRY(row)) << std::endl;
  return {};
}

Result<void> import(const Arguments& arguments) {
  const auto order = TRY(boot_reads(arguments.trace, std::filesystem::file_size(arguments.image),
                                    static_cast<std::uint32_t>(kPageSize)));
  return import_in_order(arguments.store, arguments.image, arguments.name, order,
                         arguments.extent_pages);
}

/// An empty overlay on the image, for a plugin to serve.
Result<void> overlay(const Arguments& arguments) {
  const auto store = TRY(ImageStore::open(arguments.store));
  const auto version = TRY(store->catalog().version(arguments.name, 0));
  return imagestore::Overlay::create(arguments.folder,
                                     {.base = version.id, .size_bytes = version.size_bytes});
}

/// What a disk's own process says of itself.
Result<void> disk_status(const Arguments& arguments) {
  auto connection = TRY(imagestore::DiskConnection::open(arguments.socket));
  bus::DiskRequest ask;
  ask.mutable_ask_status();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  const auto reply = TRY(connection.call(ask, deadline));
  if (reply.disks_size() != 1) return fail(Errc::kCorrupt, "the disk does not say how it is");
  const auto& disk = reply.disks(0);
  std::cout << nlohmann::json{{"path", "disk"},
                              {"clients", 1},
                              {"size_bytes", disk.size_bytes()},
                              {"bytes_fetched", disk.fetched_bytes()},
                              {"traced_bytes", disk.traced_pages() * kPageSize},
                              {"written_bytes", disk.written_bytes()}}
            << std::endl;
  return {};
}

Result<void> imports(const Arguments& arguments) {
  std::cout << TRY(run_imports(arguments.store, arguments.files)) << std::endl;
  return {};
}

void add_options(CLI::App& app, Arguments& arguments) {
  app.add_option("--store", arguments.store_folder);
  app.add_option("--origin", arguments.origin);
  app.add_option("--ceph-conf", arguments.ceph_conf);
  app.add_option("--image", arguments.image);
  app.add_option("--name", arguments.name);
  app.add_option("--trace", arguments.trace);
  app.add_option("--socket", arguments.socket);
  app.add_option("--folder", arguments.folder);
  app.add_option("--path", arguments.path);
  app.add_option("--reads", arguments.reads)->check(CLI::IsMember({"boot", "all", "random"}));
  app.add_option("--files", arguments.files);
  app.add_option("--server", arguments.servers);
  app.add_option("--clients", arguments.clients);
  app.add_option("--count", arguments.count);
  app.add_option("--bytes", arguments.bytes);
  app.add_option("--at-once", arguments.at_once);
  app.add_option("--depth", arguments.depth);
  app.add_option("--extent-pages", arguments.extent_pages);
  app.add_option("--nodes", arguments.nodes);
  app.add_option("--chunk", arguments.chunk_bytes);
  app.add_option("--node-mib", arguments.node_mib);
  app.add_option("--seconds", arguments.seconds);
  app.add_flag("--changes", arguments.changes);
  app.add_flag("--writes", arguments.writes);
}

Result<void> run(const std::string& command, const Arguments& arguments) {
  if (command == "serve") return serve(arguments);
  if (command == "fill") return fill(arguments);
  if (command == "read") return read(arguments);
  if (command == "one-sided") return one_sided(arguments);
  if (command == "limited") return limited(arguments);
  if (command == "import") return import(arguments);
  if (command == "imports") return imports(arguments);
  if (command == "overlay") return overlay(arguments);
  if (command == "disk-status") return disk_status(arguments);
  if (command == "commits") {
    return print(run_commits(arguments.store, arguments.clients, arguments.bytes));
  }
  return print(run_clones(arguments.store, arguments.count));
}

}  // namespace
}  // namespace samepage::bench

// NOLINTNEXTLINE(bugprone-exception-escape)
int main(int argc, char** argv) {
  CLI::App app("The compiled part of `tools/bench store`");
  samepage::bench::Arguments arguments;
  app.require_subcommand(1);
  for (const char* command : {"serve", "fill", "read", "one-sided", "limited", "import", "imports",
                              "overlay", "disk-status", "commits", "clones"}) {
    samepage::bench::add_options(*app.add_subcommand(command), arguments);
  }
  CLI11_PARSE(app, argc, argv);
  arguments.store.folder = arguments.store_folder;
  arguments.store.origin = arguments.origin;
  if (!arguments.ceph_conf.empty()) arguments.store.ceph_conf = arguments.ceph_conf;
  const auto done = samepage::bench::run(app.get_subcommands().front()->get_name(), arguments);
  if (done) return 0;
  std::cerr << "store_bench: " << done.error().message() << "\n";
  return 1;
}

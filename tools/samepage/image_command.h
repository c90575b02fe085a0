#pragma once

namespace CLI {
class App;
}  // namespace CLI

namespace samepage::cli {

class Subcommands;

/// `samepage image import|list|verify|export`: works on a store folder of this host and asks no
/// placer.
void add_image(CLI::App& root, Subcommands& subcommands);

}  // namespace samepage::cli

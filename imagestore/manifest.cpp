#include "imagestore/manifest.h"

#include <algorithm>
#include <utility>

#include "core/check.h"

namespace samepage::imagestore {
namespace {

/// Which child of its node of `level` leads to `page`.
std::size_t child_index(std::uint64_t page, unsigned level) {
  return (page >> (8 * level)) % kFanOut;
}

/// Which node of `level` has `page` below it.
std::uint64_t node_number(std::uint64_t page, unsigned level) {
  return page >> (8 * (level + 1));
}

}  // namespace

Result<Manifest> Manifest::open(Origin& origin, const DomainKeys& keys, const VersionId& version) {
  const auto bytes = TRY(origin.get(version));
  if (name_object(bytes, keys) != version) {
    return fail(Errc::kCorrupt, "version " + to_hex(version) + ": does not match its digest (" +
                                    origin.place(version) + ")");
  }
  return Manifest(origin, keys, TRY(decode_version(bytes, keys)));
}

Result<ManifestNode> Manifest::read_node(const ObjectName& name, unsigned level) {
  const std::string what = "manifest node " + to_hex(name);
  auto bytes = origin_->get(name);
  if (!bytes) {
    // The tree proves that the node was there once.
    const Errc code =
        bytes.error().code() == Errc::kNotFound ? Errc::kCorrupt : bytes.error().code();
    return fail(code, what + ": " + bytes.error().message());
  }
  const auto named = name_node(*bytes, keys_);
  if (!named || *named != name) {
    return fail(Errc::kCorrupt,
                what + ": does not match its digest (" + origin_->place(name) + ")");
  }
  auto node = ManifestNode::decode(*bytes, keys_, level);
  if (!node) return tl::unexpected(std::move(node).error().within(what));
  return node;
}

Result<const ManifestNode*> Manifest::remembered_node(const ObjectName& name, unsigned level) {
  Step& step = path_[level];
  if (step.name != name) {
    step.name.reset();
    step.node = TRY(read_node(name, level));
    step.name = name;
  }
  return &step.node;
}

Result<std::optional<ObjectName>> Manifest::find_node(unsigned level, std::uint64_t number) {
  std::optional<ObjectName> name = version_.root;
  const std::uint64_t page = number << (8 * (level + 1));
  for (unsigned above = version_.height() - 1; name && above > level; --above) {
    const ManifestNode* node = TRY(remembered_node(*name, above));
    name = node->child(child_index(page, above));
  }
  return name;
}

Result<std::optional<PageRef>> Manifest::find(std::uint64_t page) {
  CHECK(page < pages());
  const auto leaf = TRY(find_node(0, node_number(page, 0)));
  if (!leaf) return std::nullopt;
  const ManifestNode* node = TRY(remembered_node(*leaf, 0));
  return node->page(child_index(page, 0));
}

Result<void> Manifest::walk(const Enter& enter, const Visit& visit) {
  struct Pending {
    unsigned level = 0;
    std::uint64_t number = 0;
    ObjectName name;
  };
  std::vector<Pending> pending;  // At most kHeightMax * kFanOut.
  if (version_.root) pending.push_back({version_.height() - 1, 0, *version_.root});
  while (!pending.empty()) {
    const Pending at = pending.back();
    pending.pop_back();
    if (!enter(at.name)) continue;
    const ManifestNode node = TRY(read_node(at.name, at.level));
    if (at.level == 0) {
      TRY(visit_leaf(node, at.number * kFanOut, visit));
      continue;
    }
    // The last child is pushed first, so that the first one is taken first.
    for (std::size_t index = kFanOut; index-- > 0;) {
      const auto child = node.child(index);
      if (child) pending.push_back({at.level - 1, at.number * kFanOut + index, *child});
    }
  }
  return {};
}

Result<void> Manifest::visit_leaf(const ManifestNode& leaf, std::uint64_t first_page,
                                  const Visit& visit) const {
  for (std::size_t index = 0; index < kFanOut; ++index) {
    const auto ref = leaf.page(index);
    if (!ref) continue;
    if (first_page + index >= pages()) {
      return fail(Errc::kCorrupt, "a manifest names pages beyond the image's end");
    }
    TRY(visit(first_page + index, *ref));
  }
  return {};
}

Result<ManifestNode> Manifest::node_at(unsigned level, std::uint64_t number) {
  ManifestNode node(level);
  const unsigned height = version_.height();
  if (level >= height) {
    if (number == 0 && level == height) node.set(0, version_.root);
    // Above the root of a shallow tree lie nodes with one child; who walks down asks for it next.
    return node;
  }
  if (number >> (8 * (height - 1 - level)) != 0) return node;
  const auto name = TRY(find_node(level, number));
  if (!name) return node;
  const ManifestNode* found = TRY(remembered_node(*name, level));
  return *found;
}

Result<void> Manifest::diff_leaves(const ManifestNode& before, const ManifestNode& after,
                                   std::uint64_t first_page, const VisitChange& visit) {
  for (std::size_t index = 0; index < kFanOut; ++index) {
    if (before.child(index) == after.child(index)) continue;
    TRY(visit(first_page + index, before.page(index), after.page(index)));
  }
  return {};
}

Result<void> Manifest::diff_below(Manifest& before, Manifest& after, unsigned level,
                                  std::uint64_t number, const VisitChange& visit) {
  const ManifestNode one = TRY(before.node_at(level, number));
  const ManifestNode other = TRY(after.node_at(level, number));
  if (level == 0) return diff_leaves(one, other, number * kFanOut, visit);
  for (std::size_t index = 0; index < kFanOut; ++index) {
    // A child of a level that only one tree has is named by that tree alone, so it is entered.
    const bool same = one.child(index) == other.child(index);
    const bool shallow = level >= std::min(before.version_.height(), after.version_.height());
    if (same && !(shallow && index == 0)) continue;
    TRY(diff_below(before, after, level - 1, number * kFanOut + index, visit));
  }
  return {};
}

Result<void> Manifest::diff(Manifest& before, Manifest& after, const VisitChange& visit) {
  if (before.version_.root == after.version_.root &&
      before.version_.height() == after.version_.height()) {
    return {};
  }
  const unsigned height = std::max(before.version_.height(), after.version_.height());
  return diff_below(before, after, height - 1, 0, visit);
}

ManifestBuilder::ManifestBuilder(Origin& origin, const DomainKeys& keys, std::uint64_t size_bytes)
    : origin_(&origin),
      keys_(keys),
      version_{.size_bytes = size_bytes, .root = std::nullopt},
      open_(version_.height()) {}

Result<ManifestBuilder> ManifestBuilder::on_top_of(const Manifest& base, std::uint64_t size_bytes) {
  if (size_bytes < base.size_bytes()) return fail(Errc::kInvalid, "an image does not shrink");
  ManifestBuilder builder(*base.origin_, base.keys_, size_bytes);
  builder.base_ = base;
  builder.version_.root = base.version_.root;
  // A taller tree needs the nodes above the base's root; they lie on the path to page 0.
  if (builder.version_.height() != base.version_.height()) TRY(builder.enter(0));
  return builder;
}

Result<void> ManifestBuilder::enter(std::uint64_t page) {
  for (unsigned level = 0; level < open_.size(); ++level) {
    if (open_[level] && open_[level]->number != node_number(page, level)) TRY(close(level));
  }
  for (unsigned level = static_cast<unsigned>(open_.size()); level-- > 0;) {
    if (open_[level]) continue;
    const std::uint64_t number = node_number(page, level);
    ManifestNode node(level);
    if (base_) node = TRY(base_->node_at(level, number));
    open_[level] = OpenNode{.number = number, .node = std::move(node)};
  }
  return {};
}

Result<void> ManifestBuilder::close(unsigned level) {
  const OpenNode closed = *std::exchange(open_[level], std::nullopt);
  std::optional<ObjectName> name;
  if (!closed.node.empty()) {
    const auto bytes = closed.node.encode(keys_);
    name = TRY(name_node(bytes, keys_));
    if (level == 0 && TRY(origin_->contains(*name))) TRY(rely_on_leaf(*name));
    TRY(origin_->put(*name, bytes));
    stored_bytes_ += bytes.size();
  }
  if (level + 1 == open_.size()) {
    version_.root = name;
  } else {
    open_[level + 1]->node.set(closed.number % kFanOut, name);
  }
  return {};
}

/// A leaf that is there already stays, and its pages may lie elsewhere than those of ours.
Result<void> ManifestBuilder::rely_on_leaf(const ObjectName& name) {
  const auto bytes = TRY(origin_->get(name));
  const auto leaf = TRY(ManifestNode::decode(bytes, keys_, 0));
  for (const ObjectName& extent : leaf.extents()) TRY(origin_->keep(extent));
  return {};
}

Result<void> ManifestBuilder::set(std::uint64_t page, const std::optional<PageRef>& ref) {
  CHECK(page >= next_page_);
  CHECK(page < pages_in(version_.size_bytes));
  next_page_ = page + 1;
  TRY(enter(page));
  open_[0]->node.set_page(child_index(page, 0), ref);
  return {};
}

Result<VersionId> ManifestBuilder::finish() {
  for (unsigned level = 0; level < open_.size(); ++level) {
    if (open_[level]) TRY(close(level));
  }
  const auto bytes = encode(version_, keys_);
  const VersionId version = name_object(bytes, keys_);
  TRY(origin_->put(version, bytes));
  return version;
}

}  // namespace samepage::imagestore

#include "inference/internal/schema_index.h"

#include <set>

#include <spdlog/fmt/fmt.h>

#include "inference/json_schema.h"

namespace nanochat {
namespace {

using Json = SchemaIndex::Json;

// `reference` as it is meant in a document with the URI `base`, without what follows '#'.
std::string absolute(const std::string& base, std::string_view reference) {
  reference = reference.substr(0, reference.find('#'));
  if (reference.empty()) return base;
  const std::size_t colon = reference.find(':'), slash = reference.find('/');
  if (colon != std::string_view::npos && (slash == std::string_view::npos || colon < slash)) return std::string(reference);
  if (reference.starts_with('/')) {
    const std::size_t authority = base.find("://");
    const std::size_t path = authority == std::string::npos ? 0 : base.find('/', authority + 3);
    return base.substr(0, path) + std::string(reference);
  }
  const std::size_t folder = base.rfind('/');
  std::string front = folder == std::string::npos ? "" : base.substr(0, folder + 1);
  while (reference.starts_with("./")) reference.remove_prefix(2);
  return front + std::string(reference);
}

const std::string* text_member(const Json& node, const char* key) {
  const auto found = node.find(key);
  return found == node.end() || !found->is_string() ? nullptr : &found->get_ref<const std::string&>();
}

}  // namespace

SchemaIndex::SchemaIndex(const Json& root) : root_(root) { walk(root, {"", "", &root}, false); }

// `names`: the keys of the object are names that the schema chose, and not keywords.
void SchemaIndex::walk(const Json& node, const Place& place, bool names) {
  static const std::set<std::string> kValues = {"const", "enum", "default", "example", "examples"};
  static const std::set<std::string> kNamed = {"properties",  "patternProperties", "$defs",
                                               "definitions", "dependentSchemas",  "dependencies"};
  Place here = place;
  if (node.is_object() && !names) {
    if (const std::string* id = text_member(node, "$id"); id != nullptr && !id->starts_with('#')) {
      here.base = absolute(place.base, *id);
      here.resource = &node;
      if (&node != &root_) {
        outer_[&node] = place.resource;
        here.path = *id;
      }
      resources_.try_emplace(here.base, &node);
    }
    if (&node == &root_) resources_.try_emplace("", &node);
    for (const char* key : {"$anchor", "$dynamicAnchor"}) {
      const std::string* anchor = text_member(node, key);
      if (anchor == nullptr) continue;
      anchors_.try_emplace(here.base + "#" + *anchor, &node);
      if (key[1] == 'd') ++dynamic_anchors_[*anchor];
    }
  }
  places_.try_emplace(&node, here);
  if (node.is_array()) {
    for (std::size_t i = 0; i < node.size(); ++i) {
      walk(node[i], {fmt::format("{}/{}", here.path, i), here.base, here.resource}, false);
    }
  } else if (node.is_object()) {
    for (const auto& [key, value] : node.items()) {
      if (!names && kValues.count(key) != 0) continue;
      walk(value, {here.path + "/" + key, here.base, here.resource}, !names && kNamed.count(key) != 0);
    }
  }
}

std::string SchemaIndex::path(const Json& node) const {
  const auto found = places_.find(&node);
  return found == places_.end() || found->second.path.empty() ? "/" : found->second.path;
}

const Json* SchemaIndex::in_resource(const Json* resource, const std::string& base, std::string_view fragment) const {
  if (fragment.empty()) return resource;
  if (fragment.starts_with('/')) return find_reference(*resource, "#" + std::string(fragment));
  const auto found = anchors_.find(base + "#" + std::string(fragment));
  return found == anchors_.end() ? nullptr : found->second;
}

const Json* SchemaIndex::reference(const Json& node, std::string_view name) const {
  const std::size_t hash = name.find('#');
  const std::string_view fragment = hash == std::string_view::npos ? std::string_view() : name.substr(hash + 1);
  const auto at = places_.find(&node);
  const Json* resource = at == places_.end() ? &root_ : at->second.resource;
  const std::string base = at == places_.end() ? "" : at->second.base;
  if (hash == 0) {
    for (;;) {
      if (const Json* found = in_resource(resource, base, fragment)) return found;
      const auto outer = outer_.find(resource);
      if (outer == outer_.end() || !fragment.starts_with('/')) return nullptr;
      resource = outer->second;
    }
  }
  if (name.empty()) return nullptr;
  const std::string uri = absolute(base, name);
  const auto found = resources_.find(uri);
  return found == resources_.end() ? nullptr : in_resource(found->second, uri, fragment);
}

const Json* SchemaIndex::dynamic_reference(const Json& node, std::string_view name) const {
  const Json* target = reference(node, name);
  if (target == nullptr || !target->is_object()) return target;
  const std::string* anchor = text_member(*target, "$dynamicAnchor");
  const bool dynamic = anchor != nullptr && name.ends_with("#" + *anchor);
  return dynamic && dynamic_anchors_.at(*anchor) > 1 ? nullptr : target;
}

}  // namespace nanochat

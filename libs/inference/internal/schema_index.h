#pragma once
// For the JSON constraint only: where the parts of a schema are, and what its references name.
// Keeps pointers into the schema, which must outlive it.

#include <map>
#include <set>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace nanochat {

class SchemaIndex {
 public:
  using Json = nlohmann::ordered_json;
  explicit SchemaIndex(const Json& root);

  const Json& root() const { return root_; }
  // "/properties/a", for messages; behind the $id of the innermost resource, if it has one.
  std::string path(const Json& node) const;
  // What $ref in `node` names; null: nothing in this schema. A JSON pointer is looked up in the innermost resource (a schema
  // with an $id) around the node, and then in those around that.
  const Json* reference(const Json& node, std::string_view name) const;
  // $dynamicRef; null, too, if several schemas have this $dynamicAnchor.
  const Json* dynamic_reference(const Json& node, std::string_view name) const;

 private:
  struct Place {
    std::string path, base;                 // base: the URI of the resource
    const Json* resource = nullptr;
  };
  void walk(const Json& node, const Place& place, bool names);
  const Json* in_resource(const Json* resource, const std::string& base, std::string_view fragment) const;

  const Json& root_;
  std::map<const Json*, Place> places_;
  std::map<const Json*, const Json*> outer_;         // of a resource: the one around it
  std::map<std::string, const Json*> resources_;     // by URI
  std::map<std::string, const Json*> anchors_;       // by URI, '#' and name
  std::map<std::string, int> dynamic_anchors_;       // how many have the name
};

}  // namespace nanochat

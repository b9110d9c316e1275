#include "inference/internal/json_formats.h"

#include <map>

namespace nanochat {
namespace {

// Every expression describes a part of what the format allows, so that strict readers (RFC 3339, Pydantic, Python's
// ipaddress) take each text: years from 1000 on, seconds below 60, addresses of the web as URIs.
std::map<std::string, std::string, std::less<>> make_formats() {
  const std::string year = "[1-9][0-9]{3}";
  const std::string leap_year = "(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)";
  const std::string date = "(?:" + year +
                           "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-"
                           "9]|1[0-9]|2[0-8]))|" +
                           leap_year + "-02-29)";
  const std::string hour_minute = "(?:[01][0-9]|2[0-3]):[0-5][0-9]";
  const std::string time = hour_minute + ":[0-5][0-9](?:\\.[0-9]{1,6})?(?:Z|[+-]" + hour_minute + ")";
  const std::string n = "[0-9]{1,4}";
  const std::string clock = "T(?:" + n + "H(?:" + n + "M(?:" + n + "S)?)?|" + n + "M(?:" + n + "S)?|" + n + "S)";
  const std::string days = "(?:" + n + "Y(?:" + n + "M(?:" + n + "D)?)?|" + n + "M(?:" + n + "D)?|" + n + "D)";
  const std::string duration = "P(?:" + n + "W|" + days + "(?:" + clock + ")?|" + clock + ")";
  const std::string byte = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
  const std::string ipv4 = byte + "(?:\\." + byte + "){3}";
  const std::string group = "[0-9A-Fa-f]{1,4}";
  std::string ipv6 = "(?:(?:" + group + ":){7}" + group;
  // "::" for at least two groups: some before it, and at most 6 in all.
  for (int before = 0; before <= 6; ++before) {
    const std::string front = before == 0 ? "" : group + "(?::" + group + "){" + std::to_string(before - 1) + "}";
    const std::string back = before == 6 ? "" : "(?:" + group + "(?::" + group + "){0," + std::to_string(5 - before) + "})?";
    ipv6 += "|" + front + "::" + back;
  }
  ipv6 += ")";
  const std::string label = "[A-Za-z0-9](?:[A-Za-z0-9]|-[A-Za-z0-9]){0,14}";
  const std::string hostname = label + "(?:\\." + label + "){0,6}";
  const std::string domain = "(?:" + label + "\\.)+[a-z]{2,12}";
  const std::string local = "[A-Za-z0-9_](?:[A-Za-z0-9_]|[.+-][A-Za-z0-9_]){0,29}";
  const std::string email = local + "@" + domain;
  const std::string escaped = "%[0-9A-Fa-f]{2}";
  const std::string segment = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|" + escaped + ")*";
  const std::string query = "(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|" + escaped + ")*";
  const std::string port = "(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}))?";
  const std::string uri = "https?://" + domain + port + "(?:/" + segment + ")*(?:\\?" + query + ")?(?:#" + query + ")?";
  const std::string pointer = "(?:/(?:[^~/]|~[01])*)*";
  const auto uuid = [](const std::string& version) {
    return "[0-9a-f]{8}-[0-9a-f]{4}-" + version + "[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";
  };
  const std::string base64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?";
  const std::string base64url = "(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-][AQgw]==|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048]=)?";
  // Characters, classes and escapes in a row, each with a quantifier or without.
  const std::string regex =
      R"((?:(?:[A-Za-z0-9_ ,:;<>=!@#%&'"/~-]|\.|\\[dwsDWSnt.*+?()|^$\\\[\]{}]|\[\^?[A-Za-z0-9_]{1,20}\])(?:[*+?]|\{[1-9]\})?)*)";
  return {
      {"date", date},
      {"time", time},
      {"date-time", date + "T" + time},
      {"duration", duration},
      {"email", email},
      {"idn-email", email},
      {"hostname", hostname},
      {"idn-hostname", hostname},
      {"ipv4", ipv4},
      {"ipv6", ipv6},
      {"ipvanyaddress", ipv4 + "|" + ipv6},
      {"uuid", uuid("[1-5]")},
      {"uuid1", uuid("1")},
      {"uuid3", uuid("3")},
      {"uuid4", uuid("4")},
      {"uuid5", uuid("5")},
      {"uri", uri},
      {"uri-reference", uri + "|/" + segment + "(?:/" + segment + ")*"},
      {"iri", uri},
      {"iri-reference", uri},
      {"uri-template", uri},
      {"json-pointer", pointer},
      {"relative-json-pointer", "(?:0|[1-9][0-9]{0,3})(?:#|" + pointer + ")"},
      {"regex", regex},
      {"base64", base64},
      {"byte", base64},
      {"base64url", base64url},
      {"password", ""},
      {"binary", ""},
      {"path", ""},
  };
}

const std::map<std::string, std::string, std::less<>>& formats() {
  static const std::map<std::string, std::string, std::less<>> all = make_formats();
  return all;
}

}  // namespace

std::optional<std::string> format_expression(std::string_view format) {
  const auto found = formats().find(format);
  if (found == formats().end()) return {};
  return found->second;
}

std::string format_names() {
  std::string names;
  for (const auto& [name, expression] : formats()) names += (names.empty() ? "" : ", ") + name;
  return names;
}

}  // namespace nanochat

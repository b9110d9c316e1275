#pragma once
// Internal to the safetensors reader and writer: names of element types and text of shapes.

#include <c10/core/ScalarType.h>
#include <c10/util/ArrayRef.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace nanochat {

inline constexpr std::array<std::pair<std::string_view, at::ScalarType>, 10> kSafetensorsDtypes = {{
    {"BOOL", at::kBool},
    {"U8", at::kByte},
    {"I8", at::kChar},
    {"I16", at::kShort},
    {"I32", at::kInt},
    {"I64", at::kLong},
    {"F16", at::kHalf},
    {"BF16", at::kBFloat16},
    {"F32", at::kFloat},
    {"F64", at::kDouble},
}};

// Empty for a type that the format does not have.
inline std::string_view safetensors_dtype_name(at::ScalarType dtype) {
  for (const auto& [name, type] : kSafetensorsDtypes) {
    if (type == dtype) return name;
  }
  return {};
}

inline std::string shape_text(c10::IntArrayRef shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + ")";
}

}  // namespace nanochat

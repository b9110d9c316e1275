#pragma once
// The special tokens of a chat model in the order of their ids, which are the last ids of the vocabulary.
// Source: nanochat/tokenizer.py of the reference.

#include <array>
#include <string_view>

namespace nanochat {

inline constexpr std::string_view kBos = "<|bos|>";
inline constexpr std::string_view kUserStart = "<|user_start|>";
inline constexpr std::string_view kUserEnd = "<|user_end|>";
inline constexpr std::string_view kAssistantStart = "<|assistant_start|>";
inline constexpr std::string_view kAssistantEnd = "<|assistant_end|>";
inline constexpr std::string_view kPythonStart = "<|python_start|>";
inline constexpr std::string_view kPythonEnd = "<|python_end|>";
inline constexpr std::string_view kOutputStart = "<|output_start|>";
inline constexpr std::string_view kOutputEnd = "<|output_end|>";

inline constexpr std::array<std::string_view, 9> kChatSpecialTokens = {
    kBos, kUserStart, kUserEnd, kAssistantStart, kAssistantEnd, kPythonStart, kPythonEnd, kOutputStart, kOutputEnd};

}  // namespace nanochat

#pragma once
// Errors caused by users and files. Libraries throw them. apps/ turns them into an exit code and one line on
// standard error, serving/ into an error object. Tensor contracts inside the program use TORCH_CHECK instead.
//
// A message says where (file, line or key), what was found and what was expected, in one line without a full stop.

#include <stdexcept>
#include <string>

namespace nanochat {

// Exit codes of the `nanochat` program.
enum class ExitCode : int {
  kOk = 0,
  kOther = 1,             // any other error, including out of memory
  kUsage = 2,             // usage or configuration
  kData = 3,              // data or tokenizer files
  kCheckpoint = 4,        // checkpoints
  kPartial = 5,           // partly done
  kInterrupted = 130,     // interrupted twice
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

// Wrong usage, option, environment variable or configuration key.
class ConfigError : public Error {
 public:
  explicit ConfigError(const std::string& message) : Error(ExitCode::kUsage, message) {}
};

// Text, token shards, conversations or tokenizer files that are missing, malformed or do not fit together.
class DataError : public Error {
 public:
  explicit DataError(const std::string& message) : Error(ExitCode::kData, message) {}
};

class TokenizerError : public DataError {
 public:
  using DataError::DataError;
};

class CheckpointError : public Error {
 public:
  explicit CheckpointError(const std::string& message) : Error(ExitCode::kCheckpoint, message) {}
};

// Error of the operating system (missing folder, read-only, disk full); the message has the text of strerror.
class IoError : public Error {
 public:
  explicit IoError(const std::string& message) : Error(ExitCode::kOther, message) {}
};

// Out of memory (host or device). The message says how much was requested and which option to lower.
class OutOfMemoryError : public Error {
 public:
  explicit OutOfMemoryError(const std::string& message) : Error(ExitCode::kOther, message) {}
};

// A NaN or Inf. The message names the layer and tensor where it first appeared.
class NumericalError : public Error {
 public:
  explicit NumericalError(const std::string& message) : Error(ExitCode::kOther, message) {}
};

}  // namespace nanochat

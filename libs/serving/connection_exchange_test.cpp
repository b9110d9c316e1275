#include "serving/internal/connection_exchange.h"

#include <memory>

#include <gtest/gtest.h>

namespace nanochat {
namespace {

TEST(ConnectionExchange, CallsItsFunctions) {
  int gone = 0, quiet = 0, status = 0;
  ConnectionExchange exchange({}, [] {});
  exchange.on_gone([&] { ++gone; });
  exchange.on_quiet([&] { ++quiet; });
  exchange.on_end([&](int given, std::size_t) { status = given; });
  exchange.quiet();
  exchange.quiet();
  exchange.gone();
  exchange.gone();
  exchange.end(499, 0);
  EXPECT_EQ(quiet, 2);
  EXPECT_EQ(gone, 1);
  EXPECT_EQ(status, 499);
}

// An engine may have answered, and the response may have been sent, before the handler has set all functions. They own the
// answer, which owns the exchange: if they were kept, nothing of them would ever be freed.
TEST(ConnectionExchange, KeepsNoFunctionAfterItsEnd) {
  const auto owned = std::make_shared<int>(0);
  ConnectionExchange exchange({}, [] {});
  exchange.end(200, 5);
  exchange.on_gone([owned] { ++*owned; });
  exchange.on_quiet([owned] { ++*owned; });
  exchange.on_end([owned](int status, std::size_t bytes) { EXPECT_EQ(status + static_cast<int>(bytes), 205); });
  exchange.quiet();
  EXPECT_EQ(*owned, 0) << "the client has not left";
  EXPECT_EQ(owned.use_count(), 1);
}

TEST(ConnectionExchange, TellsAtOnceThatTheClientHasLeft) {
  int gone = 0;
  ConnectionExchange exchange({}, [] {});
  exchange.gone();
  exchange.end(499, 0);
  exchange.on_gone([&] { ++gone; });
  exchange.respond({.body = "late"});
  EXPECT_EQ(gone, 1);
  EXPECT_FALSE(exchange.take_response());
}

}  // namespace
}  // namespace nanochat

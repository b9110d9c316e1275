#include "core/mapped_file.h"

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <gtest/gtest.h>

#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

TEST(MappedFileTest, MapsTheWholeFileAndMoves) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "a", std::string(10000, 'a') + "end");
  testing::write_text(folder / "b", "b");
  MappedFile a(folder / "a");
  EXPECT_EQ(text_of(a).size(), 10003u);
  EXPECT_EQ(text_of(a).substr(10000), "end");
  MappedFile moved(std::move(a));
  EXPECT_EQ(text_of(moved).substr(10000), "end");
  MappedFile b(folder / "b");
  moved = std::move(b);
  EXPECT_EQ(text_of(moved), "b");
}

TEST(MappedFileTest, EmptyFileIsAnEmptySpan) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "empty", "");
  EXPECT_TRUE(MappedFile(folder / "empty").bytes().empty());
}

TEST(MappedFileTest, WhatIsNotAFileIsAnError) {
  const testing::TemporaryDirectory folder;
  EXPECT_THROW(MappedFile(folder / "absent"), DataError);
  EXPECT_THROW(MappedFile(folder.path()), DataError);
}

TEST(MappedFileTest, AViewReadsBytesAtHand) {
  const std::string bytes = "eight or more bytes";
  MappedFile view = MappedFile::view(std::as_bytes(std::span(bytes)));
  const MappedFile moved = std::move(view);
  EXPECT_EQ(static_cast<const void*>(moved.bytes().data()), bytes.data());
  EXPECT_EQ(moved.bytes().size(), bytes.size());
}

}  // namespace
}  // namespace nanochat

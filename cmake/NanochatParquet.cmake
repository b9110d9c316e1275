# Decides whether this build reads .parquet and .zst, from NANOCHAT_PARQUET:
#   OFF   no
#   ON    yes; a missing Arrow is an error
#   AUTO  where the wheel that scripts/setup.sh fetches is found
# Sets NANOCHAT_HAS_PARQUET.
set(NANOCHAT_HAS_PARQUET OFF)
if(NANOCHAT_PARQUET STREQUAL "ON")
  find_package(ArrowWheel REQUIRED)
elseif(NANOCHAT_PARQUET STREQUAL "AUTO")
  find_package(ArrowWheel QUIET)
endif()
if(ArrowWheel_FOUND)
  set(NANOCHAT_HAS_PARQUET ON)
  message(STATUS "Parquet and zstd: Arrow ${ArrowWheel_VERSION}")
else()
  message(STATUS "Parquet and zstd: none")
endif()

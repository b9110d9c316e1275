# Finds Arrow and Parquet C++ in the Python wheel `pyarrow`, which ships headers and shared libraries that need no Python.
#
# Looks in -DArrowWheel_DIR= (the folder pyarrow/ or the one that holds it), then where scripts/setup.sh puts the wheel,
# .deps/arrow. Defines
#   ArrowWheel::parquet   headers, libparquet and libarrow
#   ArrowWheel_VERSION
set(_hints)
if(ArrowWheel_DIR)
  list(APPEND _hints "${ArrowWheel_DIR}" "${ArrowWheel_DIR}/pyarrow")
endif()
list(APPEND _hints "${PROJECT_SOURCE_DIR}/.deps/arrow/pyarrow")

find_path(ArrowWheel_INCLUDE_DIR parquet/file_reader.h HINTS ${_hints} PATH_SUFFIXES include NO_DEFAULT_PATH)
if(ArrowWheel_INCLUDE_DIR)
  get_filename_component(_root "${ArrowWheel_INCLUDE_DIR}" DIRECTORY)
  # The wheel has no libarrow.so, only the name with the version that is also its soname.
  foreach(_name arrow parquet)
    string(TOUPPER "${_name}" _upper)
    file(GLOB _found "${_root}/lib${_name}.so.[0-9]*")
    if(_found)
      list(GET _found 0 _first)
      set(ArrowWheel_${_upper}_LIBRARY "${_first}")
    endif()
  endforeach()
  if(EXISTS "${ArrowWheel_INCLUDE_DIR}/arrow/util/config.h")
    file(STRINGS "${ArrowWheel_INCLUDE_DIR}/arrow/util/config.h" _version REGEX "define ARROW_VERSION_STRING")
    string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" ArrowWheel_VERSION "${_version}")
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(ArrowWheel
  REQUIRED_VARS ArrowWheel_PARQUET_LIBRARY ArrowWheel_ARROW_LIBRARY ArrowWheel_INCLUDE_DIR
  VERSION_VAR ArrowWheel_VERSION
  REASON_FAILURE_MESSAGE "run scripts/setup.sh, or pass -DArrowWheel_DIR= of an unpacked pyarrow wheel")

if(ArrowWheel_FOUND AND NOT TARGET ArrowWheel::parquet)
  add_library(ArrowWheel::arrow SHARED IMPORTED)
  set_target_properties(ArrowWheel::arrow PROPERTIES
    IMPORTED_LOCATION "${ArrowWheel_ARROW_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${ArrowWheel_INCLUDE_DIR}")
  add_library(ArrowWheel::parquet SHARED IMPORTED)
  set_target_properties(ArrowWheel::parquet PROPERTIES
    IMPORTED_LOCATION "${ArrowWheel_PARQUET_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${ArrowWheel_INCLUDE_DIR}"
    INTERFACE_LINK_LIBRARIES ArrowWheel::arrow)
endif()
mark_as_advanced(ArrowWheel_INCLUDE_DIR)

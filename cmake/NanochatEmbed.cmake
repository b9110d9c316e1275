# nanochat_embed(OUTPUT_VARIABLE NAME file...)
#
# Puts files into the program. Writes a .cpp with `const std::vector<EmbeddedFile>& NAME()` as declared in
# serving/internal/embedded.h and sets OUTPUT_VARIABLE to its path. A changed file is embedded anew by the next build.
function(nanochat_embed output name)
  set(_entries)
  foreach(_file IN LISTS ARGN)
    get_filename_component(_path "${_file}" ABSOLUTE)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${_path}")
    get_filename_component(_short "${_file}" NAME)
    file(READ "${_path}" _text)
    # A literal may be 64 KiB long to be portable. Neighbours are joined, and the whole may be longer for g++ and clang.
    string(LENGTH "${_text}" _length)
    set(_literals)
    set(_begin 0)
    while(_begin LESS _length)
      string(SUBSTRING "${_text}" ${_begin} 8000 _part)
      string(APPEND _literals "R\"embedded(${_part})embedded\"\n")
      math(EXPR _begin "${_begin} + 8000")
    endwhile()
    string(APPEND _entries "    {\"${_short}\", ${_literals}},\n")
  endforeach()
  set(_source "${CMAKE_CURRENT_BINARY_DIR}/${name}.cpp")
  file(CONFIGURE OUTPUT "${_source}" @ONLY CONTENT "// Made by CMake (cmake/NanochatEmbed.cmake).
#include \"serving/internal/embedded.h\"

#pragma GCC diagnostic ignored \"-Woverlength-strings\"

namespace nanochat {

const std::vector<EmbeddedFile>& ${name}() {
  static const std::vector<EmbeddedFile> files = {
@_entries@  };
  return files;
}

}  // namespace nanochat
")
  set(${output} "${_source}" PARENT_SCOPE)
endfunction()

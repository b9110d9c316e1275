# Finds LibTorch without its own package file, which insists on a CUDA toolkit when the wheel was built with CUDA.
#
# Looks in -DTorch_DIR= (its share/cmake/Torch folder, its root, or a Python package folder torch/), then in the
# folder where scripts/setup.sh puts the wheel, .deps/torch. Defines
#   LibTorch::cpu    headers, libtorch_cpu, libc10, and the OpenMP runtime that LibTorch itself loads
#   LibTorch::cuda   (when everything that it loads is there) libtorch_cuda, libc10_cuda and libcudart on top
#   LibTorch_VERSION, LibTorch_ROOT
set(_hints)
if(Torch_DIR)
  list(APPEND _hints "${Torch_DIR}" "${Torch_DIR}/../../.." "${Torch_DIR}/torch")
endif()
if(DEFINED ENV{Torch_DIR})
  list(APPEND _hints "$ENV{Torch_DIR}" "$ENV{Torch_DIR}/../../..")
endif()
list(APPEND _hints "${PROJECT_SOURCE_DIR}/.deps/torch/torch")

find_path(LibTorch_INCLUDE_DIR ATen/core/Tensor.h HINTS ${_hints} PATH_SUFFIXES include NO_DEFAULT_PATH)
find_library(LibTorch_CPU_LIBRARY torch_cpu HINTS ${_hints} PATH_SUFFIXES lib NO_DEFAULT_PATH)
find_library(LibTorch_C10_LIBRARY c10 HINTS ${_hints} PATH_SUFFIXES lib NO_DEFAULT_PATH)
find_library(LibTorch_CUDA_LIBRARY torch_cuda HINTS ${_hints} PATH_SUFFIXES lib NO_DEFAULT_PATH)
find_library(LibTorch_C10_CUDA_LIBRARY c10_cuda HINTS ${_hints} PATH_SUFFIXES lib NO_DEFAULT_PATH)

if(LibTorch_INCLUDE_DIR AND EXISTS "${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h")
  set(_version_file "${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h")
elseif(LibTorch_INCLUDE_DIR)
  set(_version_file "${LibTorch_INCLUDE_DIR}/torch/csrc/api/include/torch/version.h")
endif()
if(_version_file AND EXISTS "${_version_file}")
  file(READ "${_version_file}" _version_text)  # the value stands on the line after the name
  string(REGEX MATCH "define TORCH_VERSION[^\"]*\"([0-9]+\\.[0-9]+\\.[0-9]+)" _ignored "${_version_text}")
  set(LibTorch_VERSION "${CMAKE_MATCH_1}")
endif()
if(LibTorch_CPU_LIBRARY)
  get_filename_component(_lib_dir "${LibTorch_CPU_LIBRARY}" DIRECTORY)
  get_filename_component(LibTorch_ROOT "${_lib_dir}" DIRECTORY)
  # One OpenMP runtime in the process: the copy that LibTorch carries where it carries one, else the system's.
  file(GLOB _gomp "${_lib_dir}/libgomp*.so*")
  if(_gomp)
    list(GET _gomp 0 LibTorch_OPENMP_LIBRARY)
  else()
    find_library(LibTorch_OPENMP_LIBRARY NAMES gomp libgomp.so.1)
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_INCLUDE_DIR LibTorch_OPENMP_LIBRARY
  VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE "run scripts/setup.sh, or pass -DTorch_DIR= of a LibTorch 2.9 or newer")
if(LibTorch_FOUND AND LibTorch_VERSION VERSION_LESS 2.9)
  message(FATAL_ERROR "LibTorch ${LibTorch_VERSION} at ${LibTorch_ROOT} is too old: 2.9 or newer is needed")
endif()

if(LibTorch_FOUND AND NOT TARGET LibTorch::cpu)
  # The wheel's include folder also carries other projects' headers, among them an {fmt} newer than the one that spdlog
  # is built with and would win over it. Only LibTorch's own are shown, through links.
  # Named alike in every checkout, so that ccache knows the files of one in another.
  string(REPLACE "${PROJECT_SOURCE_DIR}/" "" _include "${LibTorch_INCLUDE_DIR}")
  string(MD5 _key "${_include}")
  string(SUBSTRING "${_key}" 0 8 _key)
  set(_headers "${PROJECT_SOURCE_DIR}/.deps/libtorch-headers-${_key}")
  file(MAKE_DIRECTORY "${_headers}")
  foreach(_part ATen c10 caffe2 torch)
    if(EXISTS "${LibTorch_INCLUDE_DIR}/${_part}" AND NOT EXISTS "${_headers}/${_part}")
      file(CREATE_LINK "${LibTorch_INCLUDE_DIR}/${_part}" "${_headers}/${_part}" SYMBOLIC)
    endif()
  endforeach()
  add_library(LibTorch::c10 UNKNOWN IMPORTED)
  set_target_properties(LibTorch::c10 PROPERTIES
    IMPORTED_LOCATION "${LibTorch_C10_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${_headers}")
  # The wheel links its CUDA runtime even for CPU work; the loader finds those two libraries beside it, and the linker
  # must be told where.
  file(GLOB _nvidia_dirs LIST_DIRECTORIES true
    "${LibTorch_ROOT}/../nvidia/*/lib" "${LibTorch_ROOT}/../nvidia/*/*/lib")
  set(_rpath_links)
  foreach(_dir IN LISTS _nvidia_dirs)
    list(APPEND _rpath_links "LINKER:-rpath-link,${_dir}")
  endforeach()
  add_library(LibTorch::cpu UNKNOWN IMPORTED)
  set_target_properties(LibTorch::cpu PROPERTIES
    IMPORTED_LOCATION "${LibTorch_CPU_LIBRARY}"
    INTERFACE_LINK_OPTIONS "${_rpath_links}"
    INTERFACE_LINK_LIBRARIES "LibTorch::c10;${LibTorch_OPENMP_LIBRARY}")
  # The wheel always holds libtorch_cuda; whether it can be loaded depends on the libraries that come apart from it.
  set(_cuda_runtime)
  set(_cuda_complete ON)
  foreach(_name cudart cublas cudnn nccl)
    set(_found)
    foreach(_dir "${_lib_dir}" ${_nvidia_dirs})
      file(GLOB _candidates "${_dir}/lib${_name}.so*" "${_dir}/lib${_name}-*.so*")
      list(APPEND _found ${_candidates})
    endforeach()
    if(NOT _found)
      set(_cuda_complete OFF)
    elseif(_name STREQUAL "cudart")
      list(GET _found 0 _cuda_runtime)
    endif()
  endforeach()
  if(LibTorch_CUDA_LIBRARY AND LibTorch_C10_CUDA_LIBRARY AND _cuda_complete)
    add_library(LibTorch::cuda UNKNOWN IMPORTED)
    # --no-as-needed: libtorch_cuda registers its kernels when it is loaded; nothing refers to it by name.
    set_target_properties(LibTorch::cuda PROPERTIES
      IMPORTED_LOCATION "${LibTorch_C10_CUDA_LIBRARY}"
      INTERFACE_LINK_LIBRARIES
        "LibTorch::cpu;${_cuda_runtime};-Wl,--no-as-needed,${LibTorch_CUDA_LIBRARY},--as-needed")
  endif()
endif()
mark_as_advanced(LibTorch_INCLUDE_DIR LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_CUDA_LIBRARY
  LibTorch_C10_CUDA_LIBRARY LibTorch_OPENMP_LIBRARY)

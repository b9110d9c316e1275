# Decides whether this build has the CUDA backend, from NANOCHAT_CUDA:
#   OFF   no
#   ON    yes; anything that lacks is an error
#   AUTO  where nvcc is found and LibTorch comes with everything it loads on a GPU (scripts/setup.sh --cuda)
# Sets NANOCHAT_HAS_CUDA. Kernels are compiled for the architectures in NANOCHAT_CUDA_ARCHITECTURES, and as PTX for
# newer GPUs. The program itself runs on machines without a GPU too.
set(NANOCHAT_CUDA_ARCHITECTURES "80;89;90a" CACHE STRING "GPU architectures to compile kernels for")

set(NANOCHAT_HAS_CUDA OFF)
if(NOT NANOCHAT_CUDA STREQUAL "OFF")
  find_program(NANOCHAT_NVCC nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
  set(_missing)
  if(NOT NANOCHAT_NVCC)
    list(APPEND _missing "nvcc of a CUDA 13 toolkit (in PATH or CUDA_HOME)")
  endif()
  if(NOT TARGET LibTorch::cuda)
    list(APPEND _missing "LibTorch's CUDA libraries (scripts/setup.sh --cuda)")
  endif()
  # nccl.h of the wheel whose library LibTorch loads. Without it several processes cannot share GPUs
  # (libs/distributed/nccl_none.cpp).
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS "${LibTorch_ROOT}/../nvidia/nccl/include")
  mark_as_advanced(NCCL_INCLUDE_DIR)
  # Windows of cuDNN's attention. Without them, those of FlashAttention are used (libs/ops/cuda/cudnn_attention_none.cpp).
  find_path(CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h HINTS "${LibTorch_ROOT}/../include")
  find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS "${LibTorch_ROOT}/../nvidia/cudnn/include")
  mark_as_advanced(CUDNN_FRONTEND_INCLUDE_DIR CUDNN_INCLUDE_DIR)
  # Products with an addend. Without it, ATen's are used (libs/ops/cuda/lt_product_none.cpp).
  find_path(CUBLASLT_INCLUDE_DIR cublasLt.h HINTS "${LibTorch_ROOT}/../nvidia/cu13/include" ENV CUDA_HOME
    PATHS /usr/local/cuda PATH_SUFFIXES include)
  mark_as_advanced(CUBLASLT_INCLUDE_DIR)
  if(NOT _missing)
    set(NANOCHAT_HAS_CUDA ON)
  elseif(NANOCHAT_CUDA STREQUAL "ON")
    list(JOIN _missing ", " _missing)
    message(FATAL_ERROR "NANOCHAT_CUDA=ON, but not found: ${_missing}")
  endif()
endif()

if(NANOCHAT_HAS_CUDA)
  if(CCACHE_PROGRAM AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
    set(CMAKE_CUDA_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
  endif()
  set(CMAKE_CUDA_COMPILER "${NANOCHAT_NVCC}")
  set(CMAKE_CUDA_ARCHITECTURES OFF)  # the options below name them, 90a among them, which CMake 3.25 does not know
  set(CMAKE_CUDA_RUNTIME_LIBRARY None)  # LibTorch brings the one that the process uses
  enable_language(CUDA)
  set(NANOCHAT_CUDA_OPTIONS -std=c++20 -O3 --expt-relaxed-constexpr -Werror=all-warnings)
  foreach(_architecture IN LISTS NANOCHAT_CUDA_ARCHITECTURES)
    list(APPEND NANOCHAT_CUDA_OPTIONS "-gencode=arch=compute_${_architecture},code=sm_${_architecture}")
  endforeach()
  list(GET NANOCHAT_CUDA_ARCHITECTURES -1 _newest)
  string(REGEX REPLACE "[a-z]+$" "" _newest "${_newest}")  # "90a" code runs on that chip alone, "90" PTX on later ones
  list(APPEND NANOCHAT_CUDA_OPTIONS "-gencode=arch=compute_${_newest},code=compute_${_newest}")
  get_filename_component(_toolkit "${NANOCHAT_NVCC}" REALPATH)
  get_filename_component(_toolkit "${_toolkit}" DIRECTORY)
  set(NANOCHAT_CUDA_INCLUDE_DIR "${_toolkit}/../include")
  message(STATUS "CUDA backend: ${CMAKE_CUDA_COMPILER_VERSION}, architectures ${NANOCHAT_CUDA_ARCHITECTURES}")
else()
  message(STATUS "CUDA backend: none")
endif()

#!/usr/bin/env bash
# Installs what the build needs: Debian packages, and LibTorch and Arrow from PyPI and Boost's headers into .deps/. It is
# safe to run it again: it does only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

usage() {
  cat <<'END'
usage: scripts/setup.sh [--cpu | --cuda] [--prefix DIR]

  --cpu         Install LibTorch for CPUs (default).
  --cuda        Also install the CUDA libraries that LibTorch uses on a GPU (4 GB more).
  --prefix DIR  Install LibTorch, Arrow and Boost into DIR/torch, DIR/arrow and DIR/boost (default .deps).
END
}

kind=cpu
prefix=.deps
while [ $# -gt 0 ]; do
  case "$1" in
    --cpu | --cuda) kind=${1#--} ;;
    --prefix)
      [ $# -ge 2 ] && [ -n "$2" ] || { echo "setup: --prefix needs a folder" >&2; exit 2; }
      prefix=$2
      shift
      ;;
    --help | -h) usage; exit 0 ;;
    *) echo "setup: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

if [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "setup: LibTorch is downloaded for Linux x86_64 only; found $(uname -sm);" \
    "configure with -DTorch_DIR= of a LibTorch 2.9 or newer" >&2
  exit 1
fi
command -v dpkg-query > /dev/null || { echo "setup: this script needs Debian 12, but there is no dpkg" >&2; exit 1; }

packages=(pkg-config zlib1g-dev libssl-dev libcurl4-openssl-dev nlohmann-json3-dev libcli11-dev libspdlog-dev
  libsentencepiece-dev libpcre2-dev libutf8proc-dev libgloo-dev libgtest-dev libgmock-dev libbenchmark-dev librapidcheck-dev)
# Tools count as there when the command is, wherever it came from.
command -v g++ > /dev/null || packages+=(g++)
command -v ninja > /dev/null || packages+=(ninja-build)
command -v ccache > /dev/null || packages+=(ccache)
command -v git > /dev/null || packages+=(git)
cmake_version=$(cmake --version 2> /dev/null | awk 'NR == 1 {print $3}' || true)
[ "$(printf '%s\n' 3.25 "${cmake_version:-0}" | sort -V | head -n 1)" = 3.25 ] || packages+=(cmake)
python3 -m pip --version > /dev/null 2>&1 || packages+=(python3 python3-pip)
install_packages setup "${packages[@]}"

mkdir -p "$prefix"
exec 9> "$prefix/.setup.lock"
flock 9  # a second setup waits, and then finds the work done

# install_wheels TITLE NAME GB FILE REQUIREMENTS...: the wheels of some lists, unpacked together as $prefix/NAME, which
# then holds FILE. GB is what unpacking needs. Sets fetched=true when there was something to do.
fetched=false
install_wheels() {
  local title=$1 name=$2 needed_gb=$3 proof=$4 file free_gb complete=true
  shift 4
  local target=$prefix/$name
  local stamp=$target/.nanochat-requirements  # a line for each list of wheels that is unpacked beside it
  for file in "$@"; do
    grep -qsx "$(sha256sum < "$file" | cut -d ' ' -f 1)" "$stamp" || complete=false
  done
  ! $complete || return 0
  free_gb=$(df --output=avail -BG "$prefix" | tail -n 1 | tr -dc 0-9)
  if [ "$free_gb" -lt "$needed_gb" ]; then
    echo "setup: $prefix has $free_gb GB free; $title needs $needed_gb GB to unpack;" \
      "free some or give another folder by --prefix" >&2
    return 1
  fi
  # Unpacked under another name and renamed, so that a half-unpacked folder is never taken for a whole one.
  rm -rf "$target.partial"
  echo "setup: downloading $title into $target"
  for file in "$@"; do
    unpack_wheels "$file" "$target.partial" "$prefix/downloads"
    sha256sum < "$file" | cut -d ' ' -f 1 >> "$target.partial/.nanochat-requirements"
  done
  if [ ! -e "$target.partial/$proof" ]; then
    echo "setup: the wheel does not contain $proof" >&2
    return 1
  fi
  rm -rf "$target.old"
  [ ! -e "$target" ] || mv "$target" "$target.old"
  mv "$target.partial" "$target"
  rm -rf "$target.old" "$prefix/downloads"
  fetched=true
}

requirements=(scripts/requirements/libtorch-cpu.txt)
torch_gb=4
if [ "$kind" = cuda ]; then
  requirements+=(scripts/requirements/libtorch-cuda.txt)
  torch_gb=12
fi
install_wheels "LibTorch ($kind)" torch "$torch_gb" torch/lib/libtorch_cpu.so "${requirements[@]}"
install_wheels Arrow arrow 1 pyarrow/include/parquet/file_reader.h scripts/requirements/arrow.txt

# install_headers TITLE NAME PACKAGE FILE: a Debian package unpacked, not installed, as $prefix/NAME, which then holds
# FILE: beside another version of it, which installing would remove.
install_headers() {
  local title=$1 name=$2 package=$3 proof=$4
  local target=$prefix/$name
  [ ! -e "$target/$proof" ] || return 0
  echo "setup: downloading $title into $target"
  rm -rf "$target.partial" "$prefix/downloads"
  mkdir -p "$target.partial" "$prefix/downloads"
  if ! (cd "$prefix/downloads" && run_quietly apt-get download "$package" 2> /dev/null); then
    [ "$(id -u)" != 0 ] || run_quietly env DEBIAN_FRONTEND=noninteractive apt-get update -qq -o DPkg::Lock::Timeout=300
    (cd "$prefix/downloads" && run_quietly apt-get download "$package")
  fi
  dpkg-deb --extract "$prefix/downloads/$package"_*.deb "$target.partial"
  if [ ! -e "$target.partial/$proof" ]; then
    echo "setup: the package $package does not contain $proof" >&2
    return 1
  fi
  rm -rf "$target" "$prefix/downloads"
  mv "$target.partial" "$target"
  fetched=true
}
install_headers "Boost 1.81's headers" boost libboost1.81-dev usr/include/boost/beast/version.hpp

if ! $fetched; then
  echo "setup: everything is installed already"
elif [ "$prefix" = .deps ]; then
  echo "setup: done"
else
  echo "setup: done; configure with -DTorch_DIR=$(cd "$prefix" && pwd)/torch/torch" \
    "-DArrowWheel_DIR=$(cd "$prefix" && pwd)/arrow/pyarrow -DBoostHeaders_DIR=$(cd "$prefix" && pwd)/boost/usr/include"
fi

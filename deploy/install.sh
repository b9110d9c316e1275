#!/usr/bin/env bash
# Copies a built program with all libraries that it loads into one folder, which then runs on any Debian 12 or other system
# with the same or a newer glibc:
#
#   deploy/install.sh /opt/nanochat      # then: /opt/nanochat/bin/nanochat serve ...
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { echo "usage: deploy/install.sh PREFIX [BUILD]   (BUILD: the build folder, default build/release)"; }

case "${1:-}" in
  "" ) usage >&2; exit 2 ;;
  --help | -h) usage; exit 0 ;;
esac
prefix=$1
build=${2:-build/release}
[ -x "$build/bin/nanochat" ] || { echo "install: $build/bin/nanochat does not exist; build it first" >&2; exit 1; }

mkdir -p "$prefix/bin" "$prefix/lib"
install -m 755 "$build/bin/nanochat" "$prefix/lib/nanochat"
files=("$build/bin/nanochat")
arrow=$build/bin/libnanochat_arrow.so  # reads .parquet; loaded from the folder of the program
if [ -e "$arrow" ]; then
  install -m 644 "$arrow" "$prefix/lib/"
  files+=("$arrow")
fi

# The loader and glibc itself are the system's: they must fit its kernel and its configuration.
glibc='^(ld-linux-x86-64|libc|libm|libpthread|libdl|librt|libresolv|libutil)\.so'
for file in "${files[@]}"; do ldd "$file"; done | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u | while read -r library; do
  [[ $(basename "$library") =~ $glibc ]] || install -m 644 "$library" "$prefix/lib/"
done

cat > "$prefix/bin/nanochat" << 'END'
#!/bin/sh
folder=$(dirname "$(readlink -f "$0")")/../lib
export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$folder/nanochat" "$@"
END
chmod 755 "$prefix/bin/nanochat"
"$prefix/bin/nanochat" --version > /dev/null
echo "installed into $prefix ($(du -sh "$prefix" | cut -f 1))"

# shellcheck shell=bash
# Shared by the scripts beside it; sourced, never run.

# Number of processors that this shell may use. nproc would return OMP_NUM_THREADS if it is set.
cores() { env -u OMP_NUM_THREADS nproc; }

# Number of parallel compiler processes: one per processor, but at most one per 2 GB of memory, because LibTorch's headers
# are large.
build_jobs() {
  local processors memory_gb
  processors=$(cores)
  memory_gb=$(awk '/^MemAvailable:/ {print int($2 / 1048576)}' /proc/meminfo)
  local by_memory=$((memory_gb / 2 > 0 ? memory_gb / 2 : 1))
  echo $((processors < by_memory ? processors : by_memory))
}

# Runs a command and shows its output only if it fails.
run_quietly() {
  local log
  log=$(mktemp)
  if ! "$@" > "$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

# install_packages NAME PACKAGE...: installs what is missing of Debian's packages. Nothing of the user's is removed.
install_packages() {
  local script=$1 missing=() package
  shift
  for package in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    echo "$script: some Debian packages are missing; install them and run this again:" >&2
    echo "  sudo apt-get install -y ${missing[*]}" >&2
    return 1
  fi
  echo "$script: installing ${#missing[@]} Debian packages"
  local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-remove
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "${missing[@]}")
  # Update the package lists only if the installation fails with the current ones.
  if ! "${install[@]}" > /dev/null 2>&1; then
    run_quietly env DEBIAN_FRONTEND=noninteractive apt-get update -qq -o DPkg::Lock::Timeout=300
    run_quietly "${install[@]}"
  fi
}

# unpack_wheels REQUIREMENTS FOLDER DOWNLOADS: wheels of the lines "name==version --hash=..." of a file, unpacked
# together. They are downloaded one by one and kept in DOWNLOADS until the caller removes it; an interrupted run therefore
# continues where it stopped. They are unpacked without installing: no package of the user's Python is read or changed.
unpack_wheels() {
  local requirements=$1 folder=$2 downloads=$3 line one platforms=() minor
  for minor in $(seq 5 28); do platforms+=(--platform "manylinux_2_${minor}_x86_64"); done
  platforms+=(--platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64)
  mkdir -p "$downloads" "$folder"
  while read -r line; do
    [[ -n "$line" && "$line" != \#* ]] || continue
    one=$downloads/${line%%==*}
    mkdir -p "$one"
    echo "$line" > "$one/requirement.txt"
    if ! echo "${line##*sha256:}  $(echo "$one"/*.whl)" | sha256sum --check --status 2> /dev/null; then
      run_quietly python3 -m pip --disable-pip-version-check --no-input download --quiet --no-deps --require-hashes \
        --only-binary=:all: --implementation cp --python-version 3.11 "${platforms[@]}" \
        --dest "$one" --requirement "$one/requirement.txt" || {
        echo "cannot download ${line%% *}" >&2
        return 1
      }
    fi
    python3 -m zipfile -e "$one"/*.whl "$folder"
  done < "$requirements"
}

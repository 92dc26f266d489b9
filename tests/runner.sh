# Sourced by the scripts that run tests, after tests/server.sh: finds the test runner, and
# says what it needs of the server and of cargo.
#
# It offers `run_tests`, which takes arguments of cargo and of the test runner, `features`,
# with which the service is tested, and what tests/run needs to know of the test runner.
# shellcheck shell=bash

# Without fsync, a power loss may corrupt the data. Whoever loses power loses this
# server anyway, and until then nothing differs but the speed.
# shellcheck disable=SC2034 # tests/server.sh uses it
server_settings='fsync = off
full_page_writes = off
max_wal_size = 256MB'
# shellcheck disable=SC2034
server_memory=yes

command -v cargo >/dev/null || fail "there is no cargo: please install a Rust toolchain"
# Rust links with it, and SQLite is compiled by it.
command -v cc >/dev/null || apt_install gcc libc6-dev

# Of the service: all that applications can choose.
# shellcheck disable=SC2034 # whoever sources this uses it, and what follows
features=es-entity,json-schema,sqlite,testing

# Of all that is selected, what is not in the documentation: cargo alone can test
# that.
# shellcheck disable=SC2034
if cargo nextest --version >/dev/null 2>&1; then
    test_runner=cargo-nextest
    # .config/nextest.toml says why.
    export NEXTEST_TEST_THREADS=${NEXTEST_TEST_THREADS:-$((6 * $(nproc)))}
    run_tests() { run cargo nextest run "$@"; }
    with_profile=--cargo-profile
    not_docs=()
else
    test_runner="cargo test"
    run_tests() { run cargo test "$@"; }
    with_profile=--profile
    not_docs=(--lib --bins --tests --examples)
fi

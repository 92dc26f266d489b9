# Sourced by the scripts that need a throwaway PostgreSQL server, and a pooler before
# it: starts them in a directory of their own, installs what is missing, and leaves
# nothing behind.
#
# These are set, the first before it is sourced, the second before a server is provided:
#   name             what the script calls itself in what it prints
#   server_settings  lines for the server's postgresql.conf
#   server_memory    yes, if the server's data may be in memory, where there is room: who
#                    measures wants a disk
#
# It offers `say`, `fail`, `run` for each step, `apt_install`, `provide_server`, which
# names the server in DATABASE_URL, `provide_pooler`, which names the pooler in
# JOB_TEST_POOLER_URL, and `remove_servers`, which ends both and removes their
# directory. It takes the traps of the signals and of EXIT.
# shellcheck shell=bash

# How many servers or poolers to try: each takes a random port, and another process
# may have taken that before.
STARTS_MAX=10
# How long, in seconds, one may take until it accepts connections.
START_TIMEOUT=60
# How long, in seconds, a step may take to stop before it is killed.
STOP_TIMEOUT=10

say() {
    printf '%s: %s\n' "$name" "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

# --- What runs, and how it ends ---------------------------------------------

# The process group of the current step, the server, the pooler, their directory and
# user (nothing if that is the current one), the server's data, and what else is to be
# removed.
step=
server=
pooler=
dir=
user=
data=
leftovers=()

# Runs a command as a process group of its own. So a signal to this script is
# acted upon at once, not when the command ends, and reaches all of the command.
run() {
    set -m
    "$@" </dev/null &
    step=$!
    set +m
    local status=0
    wait "$step" || status=$?
    step=
    return "$status"
}

stop_step() {
    [[ -n $step ]] || return 0
    kill -TERM -- "-$step" 2>/dev/null || return 0
    local deadline=$((SECONDS + STOP_TIMEOUT))
    while kill -0 -- "-$step" 2>/dev/null; do
        if ((SECONDS >= deadline)); then
            kill -KILL -- "-$step" 2>/dev/null || true
            return 0
        fi
        sleep 0.1
    done
}

# Without mercy: nothing in it is worth a checkpoint.
stop_server() {
    [[ -n $server ]] || return 0
    local postmaster
    postmaster=$(sed -n 1p "$data/postmaster.pid" 2>/dev/null) || true
    kill -QUIT "${postmaster:-$server}" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}

# It is its own process group, with whatever made it the server's user.
stop_pooler() {
    [[ -n $pooler ]] || return 0
    kill -KILL -- "-$pooler" 2>/dev/null || true
    wait "$pooler" 2>/dev/null || true
    pooler=
}

# Ends the server and the pooler, and leaves nothing of them behind.
remove_servers() {
    stop_pooler
    if [[ -n $server ]]; then
        say "stopping the server"
        stop_server
    fi
    if [[ -n $dir ]]; then
        rm -rf -- "$dir" ${data:+"$data"}
        dir=
    fi
}

clean_up() {
    local status=$?
    trap '' HUP INT TERM
    stop_step
    remove_servers
    rm -f -- "${leftovers[@]}"
    exit "$status"
}

trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# --- What is installed ------------------------------------------------------

apt_install() {
    command -v apt-get >/dev/null ||
        fail "$* is missing, and there is no apt-get here to install it: please install it yourself"
    local as_root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null ||
            fail "$* is missing: please run 'apt-get install $*' as root"
        as_root=(sudo)
    fi
    say "installing $*"
    "${as_root[@]}" apt-get -qq update &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get -qq install --yes --no-install-recommends "$@" >&2
}

# Installed as a package, PostgreSQL makes a cluster and starts it with the
# machine. Nobody asked for that.
apt_install_postgres() {
    local as_root=() settings=/etc/postgresql-common/createcluster.d
    ((EUID == 0)) || as_root=(sudo)
    apt_install postgresql-common
    "${as_root[@]}" mkdir -p "$settings"
    "${as_root[@]}" sh -c "echo 'create_main_cluster = false' >$settings/job-tests.conf"
    local status=0
    apt_install postgresql || status=$?
    "${as_root[@]}" rm -f "$settings/job-tests.conf"
    return "$status"
}

# Installed as a package, PgBouncer starts at once, and with the machine. Nobody asked
# for that, either: what packages ask before they start something says no meanwhile.
apt_install_pooler() {
    local as_root=() asked=/usr/sbin/policy-rc.d ours='' status=0
    ((EUID == 0)) || as_root=(sudo)
    if [[ ! -e $asked ]]; then
        ours=$asked
        "${as_root[@]}" sh -c "printf '#!/bin/sh\nexit 101\n' >$asked && chmod 755 $asked"
    fi
    apt_install pgbouncer || status=$?
    [[ -z $ours ]] || "${as_root[@]}" rm -f "$ours"
    ((status != 0)) || "${as_root[@]}" update-rc.d pgbouncer disable || status=$?
    return "$status"
}

# Prints the directory of the server's programs: those in PATH, else the newest.
postgres_bin() {
    if command -v initdb >/dev/null && command -v postgres >/dev/null; then
        dirname -- "$(readlink -f -- "$(command -v postgres)")"
        return
    fi
    local found
    found=$(find /usr/lib/postgresql/*/bin -name postgres 2>/dev/null | sort -V | tail -n 1) || true
    [[ -n $found ]] || return 1
    dirname -- "$found"
}

# --- The server -------------------------------------------------------------

# PostgreSQL and PgBouncer refuse to run as root. Prints the user to run it as; nothing if
# that is the current one.
server_user() {
    ((EUID == 0)) || return 0
    local user
    for user in postgres nobody; do
        if id -u "$user" >/dev/null 2>&1; then
            echo "$user"
            return
        fi
    done
    fail "the server does not run as root, and there is neither a user postgres nor nobody"
}

# Makes the directory of the server and of the pooler, and finds their user.
make_dir() {
    [[ -z $dir ]] || return 0
    user=$(server_user)
    # A TMPDIR of root may be closed to the server's user.
    local parent=${TMPDIR:-/tmp}
    [[ -z $user ]] || parent=/tmp
    dir=$(mktemp -d "$parent/job-tests.XXXXXX")
    [[ -z $user ]] || chown -- "$user" "$dir"
}

# Makes the directory of the server's data: in memory, if it may be there and 4 GiB are
# free. A database for each test is hundreds of files that live for a moment, and file
# systems are slow to give out again what was freed just now.
make_data() {
    data=$dir/data
    [[ ${server_memory:-} == yes ]] || return 0
    local memory=/dev/shm kib
    kib=$(df --output=avail -- "$memory" 2>/dev/null | sed -n 2p) || return 0
    ((kib >= 4 * 1024 * 1024)) || return 0
    kib=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo) || return 0
    ((kib >= 4 * 1024 * 1024)) || return 0
    data=$(mktemp -d "$memory/job-tests.XXXXXX") || return
    [[ -z $user ]] || chown -- "$user" "$data"
}

# Prints a port to try: below the range from which systems pick ports for connections.
random_port() {
    echo $((20000 + RANDOM % 10000))
}

# Calls start_$1, for what $2 names, with a port that nobody else listens on: the
# `port` of its caller.
start_on_a_port() {
    local start log=$dir/$1.log
    for ((start = 1; start <= STARTS_MAX; start++)); do
        port=$(random_port)
        say "starting $2 on port $port${user:+ as $user}"
        ! "start_$1" "$port" || return 0
        grep -q 'Address already in use' "$log" || break
    done
    cat "$log" >&2
    fail "could not start the $1"
}

# Becomes the server's user and runs a command in a directory that it can read.
as_server_user() {
    cd -- "$dir"
    if [[ -z $user ]]; then
        exec "$@"
    elif command -v setpriv >/dev/null; then
        exec setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups -- "$@"
    elif command -v runuser >/dev/null; then
        exec runuser -u "$user" -- "$@"
    else
        # shellcheck disable=SC2016 # the inner shell is to expand it
        exec su -s /bin/sh -c 'exec "$0" "$@"' -- "$user" "$@"
    fi
}

make_cluster() {
    # No password: the directory belongs to one user, and below only this
    # machine is listened to.
    if ! run as_server_user "$bin/initdb" --pgdata="$data" --username=postgres \
        --auth=trust --encoding=UTF8 --locale=C --no-sync >"$dir/initdb.log" 2>&1; then
        cat "$dir/initdb.log" >&2
        fail "could not make a cluster"
    fi
    echo 'host all all 127.0.0.1/32 trust' >"$data/pg_hba.conf"
    # Pools of several processes at once: hence the connections.
    cat >>"$data/postgresql.conf" <<SETTINGS
listen_addresses = '127.0.0.1'
unix_socket_directories = '$dir'
max_connections = 300
$server_settings
SETTINGS
}

# Starts the server on a port, and waits until it accepts connections.
start_server() {
    set -m
    as_server_user "$bin/postgres" -D "$data" -p "$1" </dev/null >"$dir/server.log" 2>&1 &
    server=$!
    set +m
    local deadline=$((SECONDS + START_TIMEOUT)) state
    while ((SECONDS < deadline)); do
        # The server's own word, on line 8: nobody else's on the same port.
        state=$(sed -n 8p "$data/postmaster.pid" 2>/dev/null) || true
        [[ $state != ready* ]] || return 0
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    stop_server
    return 1
}

# Starts a server of our own, and names it in DATABASE_URL. Takes the directory of
# its programs; without it, they are looked for, and installed.
provide_server() {
    bin=${1:-}
    [[ -n $bin ]] || bin=$(postgres_bin) || {
        apt_install_postgres
        bin=$(postgres_bin) || fail "PostgreSQL was installed, but is not where it should be"
    }
    make_dir
    # What is given may be closed to the server's user: in a home, say.
    if ! (as_server_user test -x "$bin/postgres"); then
        cp -R -- "$bin/.." "$dir/programs"
        bin=$dir/programs/bin
    fi
    make_data
    say "making a cluster in $data, with $("$bin/postgres" --version)"
    make_cluster
    local port
    start_on_a_port server "the server"
    export DATABASE_URL="postgres://postgres@127.0.0.1:$port/postgres"
}

# --- The pooler -------------------------------------------------------------

# Prints a part of a URL as it was before it was escaped.
unescaped() {
    printf '%b' "${1//%/\\x}"
}

# Prints a value of PgBouncer's connection strings.
quoted() {
    printf "'%s'" "${1//\'/\'\'}"
}

# Writes the pooler's settings: those it comes with, in transaction mode, for each
# database of the server that DATABASE_URL names, in the name of the user there: so no
# password is asked for.
configure_pooler() {
    local address=${DATABASE_URL#*://} login='' name password='' host port=5432
    address=${address%%[/?]*}
    [[ $address != *@* ]] || login=${address%@*}
    host=${address##*@}
    name=$(unescaped "${login%%:*}")
    [[ $login != *:* ]] || password=$(unescaped "${login#*:}")
    # The port follows the last colon, unless that is one of an address in brackets.
    if [[ $host =~ ^(.*):([0-9]+)$ ]]; then
        host=${BASH_REMATCH[1]} port=${BASH_REMATCH[2]}
    fi
    host=${host#[} host=${host%]}
    # Not even for a moment is the password there for others to read.
    (
        umask 077
        cat >"$dir/pooler.ini" <<SETTINGS
[databases]
* = host=$(unescaped "${host:-localhost}") port=$port user=$(quoted "${name:-$(id -un)}")${password:+ password=$(quoted "$password")}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $1
unix_socket_dir =
auth_type = any
pool_mode = transaction
; Not a setting of what is tested: as many clients as tests at once may be.
max_client_conn = 1000
SETTINGS
    )
    [[ -z $user ]] || chown -- "$user" "$dir/pooler.ini"
}

# Starts the pooler on a port, and waits until it accepts connections.
start_pooler() {
    configure_pooler "$1"
    set -m
    as_server_user "$pgbouncer" "$dir/pooler.ini" </dev/null >"$dir/pooler.log" 2>&1 &
    pooler=$!
    set +m
    local deadline=$((SECONDS + START_TIMEOUT))
    while ((SECONDS < deadline)); do
        # It says so once it listens. Had somebody else the port, it would have ended.
        ! grep -q 'process up' "$dir/pooler.log" || return 0
        kill -0 "$pooler" 2>/dev/null || break
        sleep 0.1
    done
    stop_pooler
    return 1
}

# Where PgBouncer is: Debian has it where only root looks for programs.
pgbouncer_path() {
    PATH=$PATH:/usr/sbin command -v pgbouncer
}

# Starts a pooler of our own before the server that DATABASE_URL names, and names it
# in JOB_TEST_POOLER_URL.
provide_pooler() {
    pgbouncer=$(pgbouncer_path) || {
        apt_install_pooler
        pgbouncer=$(pgbouncer_path) || fail "PgBouncer was installed, but is not where it should be"
    }
    make_dir
    local port
    start_on_a_port pooler "$("$pgbouncer" --version | sed -n 1p)"
    export JOB_TEST_POOLER_URL="postgres://postgres@127.0.0.1:$port/postgres"
}

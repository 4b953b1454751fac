# shellcheck shell=bash
# What `deploy/kafka/local` and `deploy/postgres/local` share: arguments, ports, the process behind a pid file.
# A service lives in one directory: its settings, data, log, pid and ports. Whoever sources this sets `service` (its name),
# `log_name`, `started` (what its log says when it is up), `default_port` and `default_dir`, and defines `usage`, `answers`
# (does it answer now?), `describe` (one line: where) and `mine COMMAND_LINE` (is this process ours?).

say() { echo "$service: $*" >&2; }
die() { say "$@"; exit 1; }

# shellcheck disable=SC2034 # the sourcing script reads these
parse() {
    verb=${1:-help}
    [ $# -eq 0 ] || shift
    port='' dir=$default_dir signal=TERM fast=
    while [ $# -gt 0 ]; do
        case $1 in
        --port | --dir) [ $# -ge 2 ] || usage_error "$1 needs a value" ;;
        esac
        case $1 in
        --port) port=$2; shift ;;
        --port=*) port=${1#*=} ;;
        --dir) dir=$2; shift ;;
        --dir=*) dir=${1#*=} ;;
        --kill) signal=KILL ;;
        --unsafe-fast) fast=1 ;;
        -h | --help) verb=help ;;
        *) usage_error "unknown argument '$1'" ;;
        esac
        shift
    done
    case $port in *[!0-9]*) usage_error "--port takes a number, not '$port'" ;; esac
    [ -z "$port" ] || [ "$port" -le 65535 ] || usage_error "--port takes a number up to 65535, not '$port'"
    case $dir in
    '') usage_error "--dir takes a directory" ;;
    /*) ;;
    *) dir=$PWD/$dir ;;
    esac
}

usage_error() {
    say "$* ('help' tells more)"
    exit 2
}

# Makes DIR, and holds a lock on it until this script ends, so that two starts of one directory don't meet. Started processes
# must not inherit it: they close file descriptor 9.
lock_dir() {
    mkdir -p "$dir" || die "cannot create $dir"
    dir=$(cd "$dir" && pwd -P)
    exec 9>>"$dir/lock"
    flock -w 180 9 || die "another start or stop of $dir has been running for three minutes"
}

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
# A process that was killed looks gone a moment before the kernel has closed its sockets.
port_free() { ! port_taken "$1"; }

# A free port below the range from which the kernel takes ports for outgoing connections, so that a service that stops for a
# moment finds its port free again. Chosen at random: two starts at the same time hardly ever choose the same, and the one that
# loses the race tries another.
free_port() {
    local candidate tries
    for ((tries = 0; tries < 200; tries++)); do
        candidate=$((15000 + (RANDOM * 32768 + RANDOM) % 17000))
        port_taken "$candidate" || { echo "$candidate"; return; }
    done
    die "no free port found"
}

# The port to use: the one asked for; for none or 0 the one of the last start, as clients may still know it.
choose_port() {
    local last=''
    [ ! -f "$dir/port" ] || last=$(<"$dir/port")
    port_picked=
    if [ "${port:-0}" != 0 ]; then return; fi
    if [ -n "$last" ]; then
        port=$last
    elif [ -z "$port" ]; then
        port=$default_port
    else
        port=$(free_port) || exit 1
        # shellcheck disable=SC2034
        port_picked=1
    fi
}

# The process of the pid file, if it still lives and is ours (numbers are used again).
running() {
    [ -s "$dir/pid" ] || return 1
    pid=$(<"$dir/pid")
    command_line=''
    [ ! -r "/proc/$pid/cmdline" ] || command_line=$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)
    [ -n "$command_line" ] && mine "$command_line"
}

# Notes a process just started in the background; it goes if this script is interrupted before the service answers.
spawned() {
    pid=$1
    echo "$pid" >"$dir/pid"
    trap 'kill -KILL "$pid" 2>/dev/null; exit 130' INT TERM
    wait_until 90 started_or_dead || { show_log; die "pid $pid runs but does not answer on port $port after 90 s"; }
    running
}
# By the log of this start too: on a port that another process took first, that one would answer.
started_or_dead() { ! kill -0 "$pid" 2>/dev/null || { log_since "$started" && answers; }; }
# Byte $from: where the log of this start begins. Not `grep -q`, which ends at the first hit: behind a pipe `tail` then dies of
# SIGPIPE, and with `pipefail` a long log would never have the line.
log_since() { tail -c +"$((from + 1))" "$dir/$log_name" | grep "$1" >/dev/null; }

# wait_until SECONDS COMMAND...: tries ten times a second.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

not_running() { ! running; }

show_log() {
    say "the end of $dir/$log_name:"
    tail -n 30 "$dir/$log_name" | sed 's/^/    /' >&2
}

status() {
    [ ! -d "$dir" ] || dir=$(cd "$dir" && pwd -P)
    if ! running; then
        echo "stopped"
        exit 3
    fi
    port=$(<"$dir/port")
    if answers; then
        echo "running $(describe) pid $pid"
    else
        echo "running but not answering $(describe) pid $pid"
        exit 1
    fi
}

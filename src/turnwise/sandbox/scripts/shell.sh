# Prepares the shell that a sandbox's commands run in. $1 processes, $2 KiB of data per process, $3 KiB per file.
ulimit -c 0 -d "$2" -f "$3"
[ "$1" = unlimited ] || ulimit -u "$1"
# When the machine runs short of memory, a sandbox goes first.
echo 1000 >/proc/self/oom_score_adj
set --
# The reply's FIFO is opened for each reply, so that no command inherits it.
_turnwise_reply() { { printf '\0%s %s %s\n%s\n' "$1" "$2" "${3-}" "$PWD"; export -p; printf 'end\0'; } 1<>/run/turnwise/reply; }
# The next command's file is opened early, for the host takes its name away before it writes to it: no command finds its
# own text. A command's key is read once it is over: nothing that it ran has seen the word that ends it.
_turnwise_open() { exec {_turnwise_next}</run/turnwise/command; }
_turnwise_done() {
    local _turnwise_key
    _turnwise_open || exit "$1"
    IFS= read -r -u 3 _turnwise_key
    _turnwise_reply done "$1" "$_turnwise_key"
}
trap '_turnwise_reply left $?' EXIT
# How the host ends a command past its time-out: killing its processes alone would start the next of its parts.
trap 'exit 124' USR2
_turnwise_open && _turnwise_reply ready $$

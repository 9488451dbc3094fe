# Prepares the shell that a sandbox's commands run in. $1 processes, $2 KiB of data per process, $3 KiB per file.
ulimit -c 0 -d "$2" -f "$3"
[ "$1" = unlimited ] || ulimit -u "$1"
# When the machine runs short of memory, a sandbox goes first.
echo 1000 >/proc/self/oom_score_adj
set --
# Whatever functions, options and traps a command leaves in this shell, the loop goes on: it names builtins as such, and
# ends with `set -n`, under which bash evaluates nothing but its `for`. It is one line, for then bash counts the lines of
# a command from 1 in its error messages.
# Only POSIX mode, which an assignment begins, finds a builtin before a function of its name.
_turnwise_repair() {
    builtin printf -v _turnwise ok && [[ $_turnwise == ok ]] && builtin return
    POSIXLY_CORRECT=1
    unset -f builtin
    unset POSIXLY_CORRECT
    builtin enable builtin enable eval exec exit export local mapfile printf pwd read set unset
}
# The reply's FIFO is opened for each reply, so that no command inherits it.
_turnwise_reply() {
    {
        builtin printf '\0%s %s %s\n' "$1" "$2" "${3-}"
        builtin pwd || builtin printf '\n'
        builtin export -p
        builtin printf 'end\0'
    } 1<>/run/turnwise/reply
}
# The next command's file is opened early, for the host takes its name away before it writes to it: no command finds its
# own text. A command's key is read once it is over: nothing that it ran has seen the word that ends it.
_turnwise_open() { exec {_turnwise_next}</run/turnwise/command; }
_turnwise_done() {
    _turnwise_repair
    builtin local - _turnwise_key
    builtin set +efuvxET
    builtin unset -f exec # which closes nothing for good when it is called by way of `builtin`
    _turnwise_open || builtin exit "$1"
    builtin read -r -u 3 -N 16 _turnwise_key
    _turnwise_reply done "$1" "$_turnwise_key"
}
_turnwise_left() {
    _turnwise_repair
    builtin local -
    builtin set +efuvxET
    _turnwise_reply left "$1"
}
readonly -f _turnwise_repair _turnwise_reply _turnwise_open _turnwise_done _turnwise_left
trap '_turnwise_left "$?"' EXIT
# How the host ends a command past its time-out: killing its processes alone would start the next of its parts.
trap 'exit 124' USR2
_turnwise_open && _turnwise_reply ready $$

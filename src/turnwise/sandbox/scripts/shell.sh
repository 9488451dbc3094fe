# The shell that a sandbox's commands run in. $1 processes, $2 KiB of data per process, $3 KiB per file.
# Every line on descriptor 3 asks for the command in /run/turnwise/command; replies go to /run/turnwise/reply.
ulimit -c 0 -d "$2" -f "$3"
[ "$1" = unlimited ] || ulimit -u "$1"
set --
_turnwise_reply() { { printf '\0%s %s\n%s\n' "$1" "$2" "$PWD"; export -p; printf 'end\0'; } 1<>/run/turnwise/reply; }
trap '_turnwise_reply left $?' EXIT
_turnwise_reply ready $$
while IFS= read -r -u 3 _turnwise; do
    mapfile -d '' -t _turnwise </run/turnwise/command
    eval "${_turnwise[0]-}" </dev/null >/run/turnwise/output 2>&1 3<&-
    _turnwise_reply done $?
done

# Process 1 of a sandbox: nothing inside can kill it. Keeps a command shell running: when one ends, the next starts when
# the host says `start`; what the last one left unread comes before that. $1 to $3 are the shell's arguments; what follows
# is the program, if any, that gives up root for it. It stays of its parent's user itself, for else its parent's death
# could not be signalled to it. Requests come on descriptor 1, where the launcher could put them. The shell's loop is one
# line, for then bash counts the lines of a command from 1 in its error messages.
exec 3<&1 1>/dev/null 2>/dev/null
loop='. /run/turnwise/shell; while IFS= read -r -u 3 _turnwise; do mapfile -d "" -t _turnwise <&"$_turnwise_next"; exec {_turnwise_next}<&-; eval "${_turnwise[0]-}" </dev/null >/run/turnwise/output 2>&1 3<&-; _turnwise_done $?; done'
limits="$1 $2 $3"
shift 3
while :; do
    status=0 line=
    "$@" /bin/bash --noprofile --norc -c "$loop" bash $limits || status=$?
    printf '\0died %s\n\nend\0' "$status" 1<>/run/turnwise/reply
    until [ "$line" = start ]; do read -r line <&3 || exit; done
done

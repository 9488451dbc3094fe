# Process 1 of a sandbox: nothing inside can kill it. Does what the host asks for on descriptor 1, where the launcher could
# put it: `start` a command shell, which takes its own requests from descriptor 0; `wait` for the shell that has ended; run
# the `script` in a process of its own, which nothing that commands did to their shell can reach. $1 to $3 are the shell's
# arguments; what follows is the program, if any, that gives up root for both. Process 1 stays of its parent's user itself,
# for else its parent's death could not be signalled to it.
exec 3<&1 4<&0 </dev/null 1>/dev/null 2>/dev/null
loop=$(</run/turnwise/loop)
limits="$1 $2 $3"
shift 3
limited='ulimit -c 0; ulimit -d "$0"; ulimit -f $(($1 * 2)) # in sh, a file has blocks of 512 bytes
export PATH=/usr/bin:/bin:/usr/local/bin LC_ALL=C
. /run/turnwise/script'
reply() { printf '\0%s %s %s\n\nend\0' "$@" 1<>/run/turnwise/reply; }
while read -r order key <&3; do
    case $order in
    start)
        while read -r -t 0 -u 4 && read -r -N 1 -u 4; do :; done # what the last shell left unread
        set -m # else what runs in the background ignores SIGINT
        "$@" /bin/bash --noprofile --norc -c "$loop" bash $limits 3<&4 4<&- &
        set +m ;;
    wait)
        wait $!
        reply died $? - ;;
    script)
        (exec -c "$@" /bin/sh -c "$limited" ${limits#* } >/run/turnwise/answer 2>&1 3<&- 4<&-)
        reply ran $? "$key" ;;
    esac
done

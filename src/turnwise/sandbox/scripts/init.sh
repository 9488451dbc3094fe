# Process 1 of a sandbox: nothing inside can kill it. Keeps a command shell ($1 its script, then its arguments): when one
# ends, the next starts at the host's knock. Knocks come on descriptor 1, where the launcher could put them.
exec 3<&1 1>/dev/null 2>/dev/null
while :; do
    status=0
    bash --noprofile --norc -c "$@" || status=$?
    printf '\0died %s\n\nend\0' "$status" 1<>/run/turnwise/reply
    read -r _ <&3 || exit
done

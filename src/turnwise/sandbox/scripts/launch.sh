# Runs in a fresh user and mount namespace, as its root: makes the sandbox's disk, then becomes bubblewrap.
# $1 the control directory, $2 the disk's size in MiB, $3 "overlay" or "copy", $4 "restore" or "fresh", $5 "root" when the host's root
# started it; the rest is bubblewrap's.
set -e
control=$1 size=$2 tree=$3 start=$4 user=$5
shift 5
umask 022
# The sandbox may change what the host's root owns, so it must get the host's device nodes read-only.
[ "$user" != root ] || mount -n -o remount,bind,ro /dev
mount -n -t tmpfs -o "size=${size}m,nr_inodes=$((size * 1024)),mode=755" tmpfs "$control/disk"
cd "$control/disk"
mkdir upper work merged tmp shm
if [ "$start" = restore ]; then tar --extract --preserve-permissions --numeric-owner --xattrs --xattrs-include='user.*' </proc/self/fd/0; fi
if [ "$tree" = overlay ]; then
    mount -n -t overlay -o lowerdir=../lower,upperdir=upper,workdir=work,userxattr overlay merged
elif [ "$start" = fresh ]; then
    cp --recursive --no-dereference --preserve=mode,links,timestamps ../lower/. merged
fi
# A sandbox that could make namespaces of its own could mount disks past its limit.
echo 0 >/proc/sys/user/max_user_namespaces
exec "$@" </dev/null

# Makes the repository of an image fit to be shown; reads $workdir, $given (the base commit) and $patch (the row's setup
# patch, or nothing). Runs in a subshell of the sandbox's shell; ends with 1, and the reason in the last line, if it fails.
#
# Images hold the history after the base commit, branches with the fix in them, and often uncommitted changes. What lies
# in the working tree becomes the base commit, by itself or by a replacement that git takes for it (as in
# checkout/root.py); all other objects, names and logs go.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
export LC_ALL=C HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1 GIT_NO_REPLACE_OBJECTS=1
export GIT_AUTHOR_DATE='2000-01-01T00:00:00Z' GIT_COMMITTER_DATE='2000-01-01T00:00:00Z'
g() {
    git -c safe.directory='*' -c core.hooksPath=/dev/null -c core.fsmonitor=false -c core.quotePath=false \
        -c user.name=Turnwise -c user.email=turnwise@localhost "$@"
}
fail() {
    echo "$1"
    exit 1
}

rm -rf /r2e_tests # R2E-Gym's hidden tests
cd "$workdir" && [ -d .git ] || fail "the image has no git repository at $workdir"
base=$(g rev-parse -q --verify "$given^{commit}") || fail "the repository in the image has no commit $given"
[ -z "$patch" ] || printf '%s\n' "$patch" | g apply --whitespace=nowarn - || fail "its setup patch does not apply"

g add -u && tree=$(g write-tree) || fail "its working tree cannot be read"
head=$base
[ "$tree" = "$(g rev-parse "$base^{tree}")" ] || head=$(g commit-tree -m Base "$tree") || fail "it takes no commit"

new=.git/turnwise
rm -rf $new && mkdir -p $new/pack .git/info
g ls-files --others --exclude-standard --directory --no-empty-directory |
    sed 's/[][*?\\!# ]/\\&/g; s#^#/#' >$new/made && cat $new/made >>.git/info/exclude || fail "its files cannot be listed"
g rev-list --objects --no-walk "$head" | cut -d' ' -f1 >$new/objects &&
    g pack-objects -q $new/pack/pack <$new/objects >/dev/null || fail "its files cannot be packed"

for remote in $(g remote); do g config --remove-section "remote.$remote"; done
rm -rf .git/objects .git/refs .git/logs .git/packed-refs .git/shallow .git/*_HEAD .git/worktrees
mkdir -p .git/objects .git/refs/heads .git/refs/replace
mv $new/pack .git/objects/pack && rm -rf $new
echo "ref: refs/heads/main" >.git/HEAD
echo "$head" >.git/refs/heads/main
if [ "$head" = "$base" ]; then
    echo "$base" >.git/shallow
else
    echo "$head" >".git/refs/replace/$base"
fi
g read-tree "$head" && g update-index -q --refresh
g diff-files --quiet || fail "its working tree does not settle"

# Takes the agent's work as a patch, by /bin/sh, at the end of an episode. Arguments: the repository's root, the base
# commit, a folder for what is written, the lines of an attributes file; "again" to show what was taken under other ones,
# "names" to list the paths of the parts of the patch. Prints the patch's size in bytes and which other files hold anything,
# then the patch, if it is short.
# Git works in a repository of our own that borrows the objects: no configuration, index, hook, exclusion from the diff
# or attribute of the agent's takes part, and attributes in `info` come before those of the tree.
# The processes that it starts are what it costs. So what only a repository with submodules or attributes, with commits of
# the agent's or with files that git does not take would need is not run for the others.
set -u
work=$1 base=$2 state=$3 attributes=$4 again=$5
own=$state/own/.git
short=65536 # bytes
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_ATTR_NOSYSTEM=1 GIT_NO_REPLACE_OBJECTS=1
export GIT_TERMINAL_PROMPT=0 GIT_OPTIONAL_LOCKS=0 HOME=/nonexistent

# A repository as `git init` makes it, but for what git can do without.
init() {
    { [ ! -e "$state" ] && [ ! -L "$state" ]; } || rm -rf "$state"
    mkdir -p "$own/info" "$own/objects/info" "$own/refs" || return
    version=0 extension=
    [ ${#base} -ne 64 ] || version=1 extension='[extensions] objectFormat = sha256'
    echo 'ref: refs/heads/base' >"$own/HEAD"
    printf '%s\n' "[core] repositoryFormatVersion = $version" 'bare = false' 'autocrlf = false' 'safecrlf = false' \
        'fileMode = true' 'symlinks = true' 'quotePath = true' 'bigFileThreshold = 2g' 'logAllRefUpdates = false' \
        '[diff] ignoreSubmodules = dirty' "$extension" >"$own/config"
}

# From their repository: where it is, where its objects are, and what its HEAD and the commit that stands for the base are.
# Where the environment store made that commit, its id is what `refs/replace` says.
borrow() {
    their_dir='' objects='' head=
    {
        read -r their_dir
        read -r objects
        while read -r id; do # the one of `refs/replace`, if there is one, then HEAD's; its name where it has none
            [ -z "$head" ] || base=$head
            head=$id
        done
    } <<EOF
$(git -c safe.directory='*' -c core.fsmonitor=false rev-parse --absolute-git-dir --git-path objects \
        "--glob=refs/replace/$base*" 'HEAD^{commit}' 2>/dev/null)
EOF
    case $head in HEAD*) head= ;; esac
    : "${their_dir:=$work/.git}" "${objects:=$work/.git/objects}"
    case $objects in /*) ;; *) objects=$work/$objects ;; esac
    printf '%s\n' "$objects" >"$own/objects/info/alternates"
}

# The working tree, but for what is ignored; then what the agent tracks although it is ignored. That is in its index, or
# in a commit of its own. What git refused to add may be tracked there without being ignored.
take() {
    # Unlike `read-tree`, it looks which files are as they were: `add` would write those anew, or touch their objects.
    git reset --mixed "$base" >/dev/null || return
    special=$(git ls-files -s | grep -e '^160000 ' -e '\.gitattributes"\{0,1\}$')
    git -c "core.excludesFile=$their_dir/info/exclude" add -A --ignore-errors -- . \
        ':(exclude,glob)**/__pycache__/**' ':(exclude,glob)**/*.pyc' ':(exclude,glob)**/.turnwise-edit-*' 2>"$state/errors"
    status=$?
    [ $status -le 1 ] || { cat "$state/errors" >&2; return $status; }
    if [ -s "$state/errors" ] || [ "$head" != "$base" ]; then
        {
            GIT_INDEX_FILE="$their_dir/index" git ls-files -z
            [ -z "$head" ] || git ls-tree -r -z --name-only --full-tree "$head"
        } >"$state/tracked" 2>/dev/null
    else
        GIT_INDEX_FILE="$their_dir/index" git -c "core.excludesFile=$their_dir/info/exclude" \
            ls-files -z -c -i --exclude-standard >"$state/tracked" 2>/dev/null
    fi
    [ ! -s "$state/tracked" ] || take_tracked
}

take_tracked() {
    sort -zu "$state/tracked" -o "$state/tracked"
    git ls-files -z | sort -zu | comm -z -13 - "$state/tracked" |
        grep -zv -e '\.pyc$' -e '\(^\|/\)__pycache__/' -e '\(^\|/\)\.turnwise-edit-[^/]*$' |
        xargs -0 -r sh -c 'for file do if [ -L "$file" ] || [ -f "$file" ]; then printf "%s\0" "$file"; fi; done' sh >"$state/more"
    [ -s "$state/more" ] || return 0
    git update-index --add -z --stdin <"$state/more" 2>/dev/null ||
        xargs -0 -n 1 git update-index --add -- <"$state/more" 2>>"$state/errors" || :
}

# What a patch cannot carry, each with a word in front that says what it is. Repositories inside are left out whole.
leave_out() {
    find . -name .git -prune -o ! -type f ! -type d ! -type l -printf 'special %P\0' >"$state/left-out"
    if [ "${special#*160000 }" != "$special" ] || [ -s "$state/errors" ]; then
        links || return # git warns of each that it adds
    fi
    [ -s "$state/errors" ] || return 0
    sed -n -e "s/^error: '\(.*\)\/' does not have a commit checked out$/repository \1/p" \
        -e "s/^error: unable to add '\(.*\)' to index$/name \1/p" \
        -e "s/^error: open(\"\(.*\)\"): .*/unreadable \1/p" \
        -e "s/^warning: could not open directory '\([^']*\).*/unreadable \1/p" "$state/errors" |
        tr '\n' '\0' >>"$state/left-out"
}

links() {
    git ls-files -sz | sed -zn 's/^160000 [0-9a-f]* 0\t//p' >"$state/links"
    git ls-tree -rz --full-tree "$base" | sed -zn 's/^160000 commit [0-9a-f]*\t//p' >"$state/submodules"
    comm -z -13 "$state/submodules" "$state/links" >"$state/inside"
    git update-index -z --force-remove --stdin <"$state/inside" || return
    {
        sed -z 's/^/repository /' "$state/inside"
        xargs -0 -r sh -c '
            unset GIT_DIR GIT_WORK_TREE
            for path do
                if [ ! -e "$path/.git" ]; then changed=$(ls -A -- "$path" 2>/dev/null)
                else changed=$(git -c safe.directory="*" -c core.fsmonitor=false -C "$path" status --porcelain 2>&1); fi
                [ -z "$changed" ] || printf "submodule %s\0" "$path"
            done' sh <"$state/submodules"
    } >>"$state/left-out"
}

# Which attributes of the base commit's say that the changed files are not in the tree as they are in a commit.
convert() {
    : >"$state/attributes"
    case $special in *.gitattributes*) ;; *) return 0 ;; esac
    rm "$own/info/attributes"
    GIT_INDEX_FILE="$state/base-index" git read-tree "$base" || return
    git diff --cached --name-only --no-renames -z "$base" | GIT_INDEX_FILE="$state/base-index" \
        git check-attr --cached -z --stdin text eol ident working-tree-encoding >"$state/attributes" || return
    printf '%s\n' "$attributes" >"$own/info/attributes"
}

show() {
    git diff --cached --binary --full-index --no-ext-diff --no-textconv --no-color --no-renames --no-relative -U3 \
        --inter-hunk-context=0 --submodule=short --src-prefix=a/ --dst-prefix=b/ "$base" >"$state/patch"
}

main() {
    cd "$work" || return
    if [ "$again" ]; then base=HEAD; else borrow || return; fi
    export GIT_DIR="$own" GIT_WORK_TREE="$work"
    printf '%s\n' "$attributes" >"$own/info/attributes" || return
    case $again in
    names) git diff --cached --name-status --no-renames -z "$base" >"$state/names" ;;
    again) show ;;
    *) take && leave_out && convert && show ;;
    esac
}

[ "$again" ] || init || exit
main 2>"$state/said" || { status=$?; cat "$state/said"; exit $status; }
others=
for file in left-out attributes; do
    [ ! -s "$state/$file" ] || others="$others $file"
done
size=0
[ ! -s "$state/patch" ] || size=$(wc -c <"$state/patch")
echo "$size$others"
[ "$size" -eq 0 ] || [ "$size" -gt $short ] || cat "$state/patch"

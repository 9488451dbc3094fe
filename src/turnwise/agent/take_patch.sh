# Takes the agent's work as a patch, by /bin/sh, at the end of an episode. Arguments: the repository's root, the base
# commit, a folder for what is written, the lines of an attributes file; "again" to show what was taken under other ones.
# Git works in a repository of our own that borrows the objects: no configuration, index, hook, exclusion from the diff
# or attribute of the agent's takes part, and attributes in `info` come before those of the tree.
set -u
work=$1 base=$2 state=$3 attributes=$4 again=$5
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_ATTR_NOSYSTEM=1 GIT_NO_REPLACE_OBJECTS=1
export GIT_TERMINAL_PROMPT=0 GIT_OPTIONAL_LOCKS=0 HOME=/nonexistent
theirs() { env -u GIT_DIR -u GIT_WORK_TREE git -c safe.directory='*' -c core.fsmonitor=false "$@"; }

begin() {
    rm -rf "$state" && mkdir "$state" && cd "$work" || exit 1
    case ${#base} in 64) format=sha256 ;; *) format=sha1 ;; esac
    git init -q --template= --object-format=$format "$state/own" || exit 1
    objects=$(theirs rev-parse --path-format=absolute --git-path objects 2>/dev/null) || objects=$work/.git/objects
    their_dir=$(theirs rev-parse --absolute-git-dir 2>/dev/null) || their_dir=$work/.git
    # Where the environment store made the commit that stands for the base, its id is what `refs/replace` says.
    base=$(theirs rev-parse -q --verify "refs/replace/$base^{commit}" || echo "$base")
    mkdir -p "$state/own/.git/info" "$state/own/.git/objects/info"
    printf '%s\n' "$objects" >"$state/own/.git/objects/info/alternates"
    export GIT_DIR="$state/own/.git" GIT_WORK_TREE="$work"
    for setting in core.autocrlf=false core.safecrlf=false core.fileMode=true core.symlinks=true core.quotePath=true \
        core.bigFileThreshold=2g diff.ignoreSubmodules=dirty "core.excludesFile=$their_dir/info/exclude"; do
        git config "${setting%%=*}" "${setting#*=}" || exit 1
    done
    echo "$base" >"$state/base"
    git read-tree "$base" || exit
    cp "$GIT_DIR/index" "$state/base-index"
}

# The working tree, but for what is ignored; then what the agent tracks although it is ignored.
take() {
    printf '%s\n' "$attributes" >"$GIT_DIR/info/attributes"
    git add -A --ignore-errors -- . ':(exclude,glob)**/__pycache__/**' ':(exclude,glob)**/*.pyc' 2>"$state/errors"
    status=$?
    [ $status -le 1 ] || { cat "$state/errors"; exit $status; }
    {
        GIT_INDEX_FILE="$their_dir/index" git ls-files -z
        head=$(theirs rev-parse -q --verify 'HEAD^{commit}') && git ls-tree -r -z --name-only --full-tree "$head"
    } 2>/dev/null | sort -zu >"$state/tracked"
    git ls-files -z | sort -zu | comm -z -13 - "$state/tracked" |
        grep -zv -e '\.pyc$' -e '\(^\|/\)__pycache__/' |
        xargs -0 -r sh -c 'for file do if [ -L "$file" ] || [ -f "$file" ]; then printf "%s\0" "$file"; fi; done' sh >"$state/more"
    git update-index --add -z --stdin <"$state/more" 2>/dev/null ||
        xargs -0 -n 1 git update-index --add -- <"$state/more" 2>>"$state/errors"
}

# What a patch cannot carry, each with a word in front that says what it is. Repositories inside are left out whole.
leave_out() {
    git ls-files -sz | sed -zn 's/^160000 [0-9a-f]* 0\t//p' >"$state/links"
    git ls-tree -rz --full-tree "$base" | sed -zn 's/^160000 commit [0-9a-f]*\t//p' >"$state/submodules"
    comm -z -13 "$state/submodules" "$state/links" >"$state/inside"
    git update-index -z --force-remove --stdin <"$state/inside" || exit
    {
        sed -z 's/^/repository /' "$state/inside"
        find . -name .git -prune -o ! -type f ! -type d ! -type l -print0 | sed -z 's/^.\//special /'
        xargs -0 -r sh -c '
            for path do
                if [ ! -e "$path/.git" ]; then changed=$(ls -A -- "$path" 2>/dev/null)
                else changed=$(env -u GIT_DIR -u GIT_WORK_TREE git -c safe.directory="*" -c core.fsmonitor=false \
                    -C "$path" status --porcelain 2>&1); fi
                [ -z "$changed" ] || printf "submodule %s\0" "$path"
            done' sh <"$state/submodules"
        sed -n -e "s/^error: '\(.*\)\/' does not have a commit checked out$/repository \1/p" \
            -e "s/^error: unable to add '\(.*\)' to index$/name \1/p" \
            -e "s/^error: open(\"\(.*\)\"): .*/unreadable \1/p" \
            -e "s/^warning: could not open directory '\([^']*\).*/unreadable \1/p" "$state/errors" | tr '\n' '\0'
    } >"$state/left-out"
}

# Which attributes of the base commit's say that the changed files are not in the tree as they are in a commit.
convert() {
    rm "$GIT_DIR/info/attributes"
    git diff --cached --name-only --no-renames -z "$base" | GIT_INDEX_FILE="$state/base-index" \
        git check-attr --cached -z --stdin text eol ident working-tree-encoding >"$state/attributes"
}

show() {
    printf '%s\n' "$attributes" >"$GIT_DIR/info/attributes"
    git diff --cached --name-status --no-renames -z "$base" >"$state/names" &&
        git diff --cached --binary --full-index --no-ext-diff --no-textconv --no-color --no-renames --no-relative -U3 \
            --inter-hunk-context=0 --submodule=short --src-prefix=a/ --dst-prefix=b/ "$base" >"$state/patch" || exit
}

if [ "$again" ]; then
    base=$(cat "$state/base")
    cd "$work" && export GIT_DIR="$state/own/.git" GIT_WORK_TREE="$work" || exit 1
else
    begin && take && leave_out && convert || exit
fi
show
wc -c <"$state/patch"

"""What changed among the container's files since a moment, as an archive, and back: for engines that save no files.

A file changed when its status changed since. A directory may also have been moved here, with files in it that did not
change: so all directories' places are kept from that moment on. A changed directory is kept with the names in it, for
what is not among them was deleted.
"""

import json
import os
import stat
import time
from typing import Any, Dict, List, Tuple

_SETTLE_S = 0.01
_NAMES = "names.json"


class Baseline:
    """The file system at the moment when this is made; other mounts, such as /proc, are no part of it."""

    def __init__(self, root: str, marker: str) -> None:
        self._root = root
        self._device = os.lstat(root).st_dev
        self._places = {folder: os.lstat(folder).st_ino for folder, _ in self._walk()}
        with open(marker, "wb"):
            self._since_ns = os.stat(marker).st_ctime_ns
        time.sleep(_SETTLE_S)  # so that no later change has the same time, where the clock of files is coarse

    def _walk(self) -> List[Tuple[str, List[str]]]:
        """Every directory, parents first, with the names in it."""
        found, waiting = [], [self._root]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as listed:
                    entries = list(listed)
            except OSError:  # gone by now
                continue
            found.append((folder, [entry.name for entry in entries]))
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_dev == self._device:
                    waiting.append(entry.path)
        return found

    def changes(self) -> Tuple[Dict[str, List[str]], List[str]]:
        """The changed directories with the names in them, and all changed paths, parents first."""
        names: Dict[str, List[str]] = {}
        changed: List[str] = []
        strange = set()  # directories that are, or lie in one that is, not where a directory was
        for folder, inside in self._walk():
            try:
                state = os.lstat(folder)
            except OSError:
                continue
            if os.path.dirname(folder) in strange or self._places.get(folder) != state.st_ino:
                strange.add(folder)
            if folder in strange or state.st_ctime_ns > self._since_ns:
                names[folder] = inside
                changed.append(folder)
            changed += [
                path for path in (os.path.join(folder, name) for name in inside) if self._file(path, folder in strange)
            ]
        return names, changed

    def _file(self, path: str, strange: bool) -> bool:
        try:
            state = os.lstat(path)
        except OSError:
            return False
        return not stat.S_ISDIR(state.st_mode) and (strange or state.st_ctime_ns > self._since_ns)

    def pack(self, target: Any) -> None:
        """Write the changes to a file-like object."""
        import io
        import tarfile  # its imports are half of this process's start

        names, changed = self.changes()
        listing = json.dumps(names).encode()
        with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            head = tarfile.TarInfo(_NAMES)
            head.size = len(listing)
            archive.addfile(head, io.BytesIO(listing))
            for path in changed:
                if path != self._root and os.path.lexists(path):
                    archive.add(path, path.lstrip("/"), recursive=False)


def unpack(source: Any, root: str) -> None:
    """Extract what `Baseline.pack` wrote, or any tar archive, below `root`."""
    import shutil
    import tarfile

    with tarfile.open(fileobj=source, mode="r|") as archive:
        archive.extraction_filter = lambda member, path: member  # newer Pythons refuse owners and absolute links
        for member in archive:
            if member.name == _NAMES:
                listing = archive.extractfile(member)
                assert listing is not None
                _remove_others(json.loads(listing.read().decode()))
                continue
            path = os.path.join(root, member.name)
            if os.path.isdir(path) and not os.path.islink(path) and not member.isdir():
                shutil.rmtree(path)
            elif os.path.lexists(path) and not (member.isdir() and os.path.isdir(path)):
                os.unlink(path)
            archive.extract(member, root, numeric_owner=True)


def _remove_others(names: Dict[str, List[str]]) -> None:
    import shutil

    for folder, kept in names.items():
        if os.path.isdir(folder) and not os.path.islink(folder):
            for name in set(os.listdir(folder)) - set(kept):
                path = os.path.join(folder, name)
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)

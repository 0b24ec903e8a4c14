"""Names of files and folders that operating systems and programs leave behind, and that are never images."""

CLUTTER_NAMES: frozenset[str] = frozenset(
    {
        # Synology and QNAP storage: thumbnails, recycle bins, snapshots.
        "@eaDir",
        "#recycle",
        "#snapshot",
        "@Recycle",
        "@Recently-Snapshot",
        ".@__thumb",
        ".@__qini",
        # macOS: folder settings, indexes, resource forks in ZIP archives.
        ".DS_Store",
        "__MACOSX",
        ".AppleDouble",
        ".AppleDB",
        ".Spotlight-V100",
        ".fseventsd",
        ".TemporaryItems",
        ".DocumentRevisions-V100",
        # Windows.
        "Thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "$RECYCLE.BIN",
        "RECYCLER",
        "System Volume Information",
        # Linux desktops and file systems, notebooks, version control.
        "lost+found",
        ".thumbnails",
        ".directory",
        ".ipynb_checkpoints",
        ".git",
    }
)
_FOLDED = {name.casefold(): name for name in CLUTTER_NAMES}
# `.Trash-1000` and `.Trashes`; macOS' `._photo.jpg` on disks of other systems; deleted files on NFS.
_PREFIXES = (".trash", "._", ".nfs")


def is_clutter(name: str) -> bool:
    """Whether the name of a file or folder (one part of a path) marks it as clutter.

    The comparison ignores case, as do the systems that create most of these files.
    """
    return clutter_kind(name) is not None


def clutter_kind(name: str) -> str | None:
    """The usual name of clutter, such as `Thumbs.db` or `._*`; None for any other name."""
    folded = name.casefold()
    if folded in _FOLDED:
        return _FOLDED[folded]
    return next((f"{prefix}*" for prefix in _PREFIXES if folded.startswith(prefix)), None)

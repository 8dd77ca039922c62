"""The work directory of a training: which checkpoint a run goes on from, what killed runs left."""
import os
import re
from pathlib import Path

from .files import PARTIAL, write_atomically

__all__ = ['last_checkpoint', 'remove_partial_checkpoints', 'resumable', 'write_note']

NOTE = 'last_checkpoint'
NUMBERED = re.compile(r'(?:iter|epoch)_(\d+)\.pth')
# what tempfile puts between a checkpoint's name, perhaps cut short, and the suffix
LEFT = re.compile(rf'\.(?:(?:best_.+_)?(?:iter|epoch)_\d+\.pth|best_.{{55}}|{NOTE})'
                  rf'\.[a-z0-9_]{{8}}(?:{re.escape(PARTIAL)})?')


def write_note(work_dir, checkpoint):
    """Write ``last_checkpoint``: the name in the folder, so that a copied folder has its own.

    Args:
        work_dir (str): The work directory.
        checkpoint (str): File; outside of the folder, or no local file, it is named as it is.
    """
    text = str(checkpoint)
    if '://' not in text:
        path, folder = os.path.abspath(text), os.path.abspath(work_dir)
        inside = os.path.commonpath([path, folder]) == folder
        text = os.path.relpath(path, folder) if inside else path
    write_atomically(os.path.join(work_dir, NOTE), text.encode())


def last_checkpoint(work_dir):
    """The checkpoint that ``last_checkpoint`` names, there or not; None without a name.

    The file beside the note comes first: mmengine's notes are relative to wherever the run was
    started, or name the folder that this one was copied from.
    """
    folder = Path(work_dir)
    try:
        text = (folder / NOTE).read_text().strip()
    except FileNotFoundError:
        return None
    if not text or '://' in text:
        return text or None
    places = [folder / Path(text).name, Path(text)]
    if not os.path.isabs(text):
        places.insert(0, folder / text)
    return str(next((path for path in places if path.is_file()), places[0]))


def resumable(work_dir):
    """The checkpoints that a run may go on from, the one to take first.

    The noted one, then those before it, the newest first: a later one may be of another run.

    Returns:
        list[str]: not necessarily existing files; none if nothing was saved.
    """
    noted = last_checkpoint(work_dir)
    if noted and '://' in noted:
        return [noted]
    folder = Path(noted).parent if noted else Path(work_dir)
    number = NUMBERED.fullmatch(Path(noted).name) if noted else None
    found = {int(match[1]): path for path in (folder.iterdir() if folder.is_dir() else ())
             if (match := NUMBERED.fullmatch(path.name)) and path.is_file()}
    before = [str(found[key]) for key in sorted(found, reverse=True)
              if not number or key < int(number[1])]
    return [noted, *before] if noted else before


def remove_partial_checkpoints(folder):
    """Remove what killed runs left of checkpoints that they were writing into ``folder``.

    Returns:
        list[str]: the names of the removed files.
    """
    names = [name for name in os.listdir(folder) if LEFT.fullmatch(name)]
    for name in names:
        Path(folder, name).unlink(missing_ok=True)
    return names

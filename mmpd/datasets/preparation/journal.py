"""What is done of a data set, in files that survive a kill and that several machines may write.

One line for every finished image. A run without shards writes ``progress.jsonl``, shard 2 of 16
``progress.2-of-16.jsonl``; when all is done they are joined into the former. So every run knows
what all others have finished, whatever they were started as.
"""
import json
import os

from ...utils.files import PARTIAL, partial_stem, write_atomically
from ...utils.validation import refuse

__all__ = ['Journal', 'check_shard']

NAME = 'progress.jsonl'


def check_shard(shard):
    """Return (i, n) of a shard; (1, 1) for None, which is everything.

    Args:
        shard (Sequence[int] | None): The i-th of n parts, 1 <= i <= n.

    Raises:
        ValueError: For anything else.

    Example:
        >>> from mmpd.datasets.preparation.journal import check_shard
        >>> check_shard((2, 16)), check_shard(None)
        ((2, 16), (1, 1))
    """
    if shard is None:
        return 1, 1
    if not isinstance(shard, (tuple, list)) or len(shard) != 2 or not all(
            type(value) is int for value in shard) or not 1 <= shard[0] <= shard[1]:
        refuse('shard', 'two integers (i, n) with 1 <= i <= n', shard)
    return tuple(shard)


def _read(path, header):
    """Entries of a file by key; half-written last lines are dropped."""
    try:
        lines, done = path.read_text().split('\n'), {}
        first = json.loads(lines[0])
    except (FileNotFoundError, ValueError):
        return {}  # joined meanwhile, or killed while writing its first line
    if first != header:
        changed = ', '.join(f'{key} = {first.get(key)!r}' for key in header
                            if first.get(key) != header[key])
        raise ValueError(f'{path.parent} was made with {changed}: choose another output folder or '
                         'delete it')
    for line in lines[1:]:
        try:
            entry = json.loads(line)
            done[entry['key']] = entry
        except (ValueError, KeyError):
            continue
    return done


class Journal:
    """The journals of an output folder, and the one that this run writes.

    Args:
        out (Path): The folder.
        header (dict): Options that decide the pixels; all journals must have them.
        shard (tuple[int, int]): (i, n).
    """

    def __init__(self, out, header, shard):
        self.out, self.header, (self.index, self.count) = out, header, shard
        self.path = out / (NAME if self.count == 1 else
                           f'progress.{self.index}-of-{self.count}.jsonl')

    def own(self, keys):
        """Those of the keys that are this shard's."""
        return keys[self.index - 1::self.count]

    def read(self):
        """Entries of all finished images by key.

        Raises:
            ValueError: If the folder was made with other options or from another source.
        """
        shards = {}
        for path in sorted(self.out.glob('progress.*-of-*.jsonl')):
            for key, entry in _read(path, self.header).items():
                if key not in shards or 'bad' in shards[key]:  # mended since
                    shards[key] = entry
        # last, for a shard that joins them writes this one before it removes the others
        return {**_read(self.out / NAME, self.header), **shards}

    def start(self, done):
        """Begin this run's file with what it need not do again."""
        self._write(self.path, done.values())

    def _write(self, path, entries):
        write_atomically(path, ''.join(
            json.dumps(line) + '\n' for line in (self.header, *entries)).encode())

    def join(self, keys, done):
        """One file, in the order of the keys, as if there had been no shards."""
        order = dict.fromkeys([*keys, *done])
        self._write(self.out / NAME, [done[key] for key in order if key in done])
        for path in self.out.glob('progress.*-of-*.jsonl'):
            path.unlink(missing_ok=True)

    def remove_partial_files(self, folder, names, own_names):
        """Remove what a killed run of this shard left; the others may be writing theirs."""
        own, others = set(map(partial_stem, own_names)), set()
        if self.count > 1:
            others = set(map(partial_stem, set(names) - set(own_names)))
        for name in os.listdir(folder):
            stem = name.rsplit('.', 2)[0]
            if name.startswith('.') and name.endswith(PARTIAL) and (
                    self.count == 1 or stem in own - others):
                os.unlink(folder / name)

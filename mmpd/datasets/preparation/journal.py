"""What is done of a data set, in files that survive a kill and that several machines may write.

One line for every finished image. A run without shards writes ``progress.jsonl``, shard 2 of 16
``progress.2-of-16.jsonl``; when all is done they are joined into the former. So every run knows
what all others have finished, whatever they were started as.
"""
import json
import os
import shutil

from ...utils.files import PARTIAL, TEMPORARY, write_atomically
from ...utils.validation import refuse

__all__ = ['Journal', 'check_shard']

NAME = 'progress.jsonl'
LEFT_OUT = dict(gt=True)  # of a header, where it is so
LISTS = ('limit', 'test_count')  # of a shard: what the others must have too, or the lists are wrong


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


def _read(path, header, lists=None):
    """Entries of a file by key; half-written last lines are dropped."""
    try:
        lines, done = path.read_text().split('\n'), {}
        first = json.loads(lines[0])
    except FileNotFoundError:
        return {}  # joined meanwhile
    except ValueError:
        first = None
    if not isinstance(first, dict) or not first.keys() & header.keys():
        raise ValueError(f'{path} is no journal of a converter: choose another output folder')
    others = {key: first.pop(key) for key in LISTS if key in first}
    changed = _changed({**LEFT_OUT, **first}, {**LEFT_OUT, **header})
    if changed:
        raise ValueError(f'{path.parent} was made with {changed}: choose another output folder or '
                         'delete it')
    changed = _changed(others, lists) if lists and others else ''
    if changed:
        raise ValueError(f'{path.parent}: another shard was started with {changed}; expected the '
                         'same of all shards (a run without shards needs none of them)')
    for line in lines[1:]:
        try:
            entry = json.loads(line)
            done[entry['key']] = entry
        except (ValueError, KeyError):
            continue
    return done


def _changed(first, second):
    return ', '.join(f'{key} = {first.get(key)!r}' for key in {**second, **first}
                     if first.get(key) != second.get(key))


class Journal:
    """The journals of an output folder, and the one that this run writes.

    Args:
        out (Path): The folder.
        header (dict): Options that decide the pixels; all journals must have them.
        shard (tuple[int, int]): (i, n).
        lists (dict, optional): The options that decide the lists, in which all shards must agree.

    Attributes:
        path (Path): The journal of this run.
        partial (str): Name of this run's folders, in the image folders, for unfinished files.
    """

    def __init__(self, out, header, shard, lists=None):
        self.out, self.header, (self.index, self.count) = out, header, shard
        self.lists = lists if self.count > 1 else None
        self.path = out / (NAME if self.count == 1 else
                           f'progress.{self.index}-of-{self.count}.jsonl')
        self._partial_start = f'.{self.index}-of-{self.count}.'
        self.partial = f'{self._partial_start}{os.urandom(4).hex()}{PARTIAL}'

    def own(self, keys):
        """Those of the keys that are this shard's."""
        return keys[self.index - 1::self.count]

    def exists(self):
        """Whether a run has begun here."""
        # in this order, for they are joined in it
        return any(self.out.glob('progress.*-of-*.jsonl')) or (self.out / NAME).exists()

    def read(self):
        """Entries of all finished images by key.

        Raises:
            ValueError: If the folder was made with other options or from another source, another
                shard has other lists, or a file is no journal.
        """
        shards = {}
        for path in sorted(self.out.glob('progress.*-of-*.jsonl')):
            for key, entry in _read(path, self.header, self.lists).items():
                if key not in shards or 'bad' in shards[key]:  # mended since
                    shards[key] = entry
        # last, for a shard that joins them writes this one before it removes the others
        return {**_read(self.out / NAME, self.header), **shards}

    def start(self, done):
        """Begin this run's file with what it need not do again."""
        self._write(self.path, {**self.header, **(self.lists or {})}, done.values())

    def _write(self, path, header, entries):
        write_atomically(path, ''.join(
            json.dumps(line) + '\n' for line in (header, *entries)).encode())

    def join(self, keys, done):
        """One file, in the order of the keys, as if there had been no shards."""
        order = dict.fromkeys([*keys, *done])
        self._write(self.out / NAME, self.header, [done[key] for key in order if key in done])
        for path in self.out.glob('progress.*-of-*.jsonl'):
            path.unlink(missing_ok=True)

    def remove_partial(self, folder, all_shards=False):
        """Remove what killed runs left in an image folder: by default those of this shard only,
        for the others may be writing theirs."""
        own = '.' if self.count == 1 or all_shards else self._partial_start
        for name in os.listdir(folder):
            if TEMPORARY.fullmatch(name) and name.startswith(own):
                shutil.rmtree(folder / name, ignore_errors=True)  # which another run may do, too

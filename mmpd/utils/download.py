"""Downloads: whole, verified, and cached by their full address."""
import hashlib
import logging
import os
import re
import sys
from contextlib import contextmanager
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from mmengine.logging import print_log
from torch.hub import get_dir

from ..errors import WeightsMismatch, WeightsNotFound
from .files import PARTIAL

__all__ = ['cache_path', 'fetch', 'hash_in', 'sha256_of']

HASH = re.compile(r'-([0-9a-f]{8,64})(?:\.\w+)*$')
CHUNK = 2**20
TRIES, TIMEOUT = 4, 60  # connections per file; seconds without a byte


def hash_in(name):
    """The first digits of the SHA-256 that a file's name ends with, as in x-5bff5b44.pth, or ''."""
    found = HASH.search(name)
    digits = found[1] if found else ''
    if len(digits) == 8 and digits.isdigit():
        try:
            datetime.strptime(digits, '%Y%m%d')
            return ''  # a date
        except ValueError:
            pass
    return digits


def sha256_of(path):
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def cache_path(url):
    """Where the file at ``url`` is kept, and where it may be put by hand.

    Below torch's hub folder: ``checkpoints/NAME``, torch's own place, if the name
    has the file's hash, which tells whether it is the right one; else in a folder of its own
    for each address, because other addresses have files of that name too.
    """
    name = re.sub(r'[^\w.+-]', '_', unquote(urlsplit(url).path).rsplit('/', 1)[-1]).strip('.')
    folder = Path(get_dir()) / 'checkpoints'
    if not hash_in(name):
        folder /= hashlib.sha256(url.encode()).hexdigest()[:16]
    return folder / (name or 'download')


def fetch(url):
    """The file at an http(s) address: from the cache if it is there and right, else downloaded.

    It is downloaded under a temporary name, resumed if the connection breaks, compared with
    the length that the server announces and with the hash in its name, then moved into place.

    Args:
        url (str): Its address.

    Returns:
        Path: the file in the cache, see :func:`cache_path`.

    Raises:
        WeightsNotFound: if it cannot be had; names the place for a file got by other means.
        WeightsMismatch: if what came has not the hash that the name says.
    """
    try:
        target = cache_path(url)
    except ValueError as error:  # of an IPv6 address, say
        raise WeightsNotFound(f'expected an address, got {url}: {error}') from error
    if _is_right(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target):
            if not _is_right(target):  # no other process has got it meanwhile
                if target.exists():
                    print_log(f'{target}: its SHA-256 is not the one in its name; it is downloaded '
                              'anew', logger='current', level=logging.WARNING)
                _download(url, target)
    except (OSError, HTTPException, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise WeightsNotFound(f'cannot download {url}: {reason}. Without a network put the file at '
                              f'{target}, or name a local file instead of the address') from error
    return target


def _is_right(path):
    return path.is_file() and sha256_of(path).startswith(hash_in(path.name))


@contextmanager
def _lock(path):
    """Only one process at a time; where the system has no such locks, all of them."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(path.with_name(f'.{path.name}.lock'), 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(url, target):
    partial = target.with_name(f'.{target.name}.{os.getpid()}{PARTIAL}')
    try:
        with open(partial, 'wb') as file:
            _receive(url, file, target)
        found, expected = sha256_of(partial), hash_in(target.name)
        if not found.startswith(expected):
            raise WeightsMismatch(
                f'{url}: what was downloaded ({partial.stat().st_size} bytes) has a SHA-256 that '
                f'begins with {found[:len(expected)]}, its name says {expected}: it was changed on '
                'its way or on the server, and is not used')
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _receive(url, file, target):
    """Write the file at ``url`` into ``file``, over several connections if one breaks."""
    total, version = None, None
    for attempt in range(TRIES):
        headers = {'User-Agent': 'mmpd', 'Accept-Encoding': 'identity'}
        if file.tell() and version:  # the rest, if it is still the same file
            headers.update({'Range': f'bytes={file.tell()}-', 'If-Range': version})
        try:
            with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as answer:
                if answer.status != 206:
                    file.seek(0)
                    file.truncate()
                    length = answer.headers.get('Content-Length')
                    total = None if length is None else int(length)
                    version = answer.headers.get('ETag')
                if not attempt:
                    size = '' if total is None else f' ({total / 2**20:.1f} MiB)'
                    print_log(f'downloading {url}{size} to {target}', logger='current')
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    if total and sys.stderr.isatty():
                        end = '\n' if file.tell() == total else ''
                        print(f'\r{100 * file.tell() // total} %', end=end, file=sys.stderr)
            if total is None or file.tell() == total:
                return
        except HTTPError:
            raise  # the server's answer will be the same
        except (OSError, HTTPException) as error:
            if not file.tell():
                raise  # there was no connection, or nothing came of it
            broken = error
        else:
            broken = 'the connection ended'
    raise OSError(f'{broken} after {file.tell()} of {total or "?"} bytes, {TRIES} times')

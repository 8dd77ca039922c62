"""What the check of an LMDB refuses, LMDB could not be trusted with; what it takes, LMDB reads."""
import struct
import subprocess
import sys

import lmdb
import numpy as np
import pytest

from mmpd.utils.lmdb_file import check_lmdb

READ = '''
import lmdb, sys
from mmpd.utils.lmdb_file import check_lmdb
for path in sys.argv[1:]:
    try:
        check_lmdb(path)
        with lmdb.open(path, readonly=True, lock=False, max_readers=9).begin() as transaction:
            for key, value in transaction.cursor():
                hash(value)
        print('read')
    except (ValueError, lmdb.Error):
        print('refused')
'''


def make(path, count, largest=6000, removed=0):
    rng = np.random.default_rng(0)
    environment = lmdb.open(str(path), map_size=1 << 25)
    with environment.begin(write=True) as transaction:
        for index in range(count):
            transaction.put(b'%040d' % (index * 7919 % 100003), rng.bytes(rng.integers(largest)))
    with environment.begin(write=True) as transaction:
        for index in range(removed):
            transaction.delete(b'%040d' % (index * 7919 % 100003))
    environment.close()
    return path / 'data.mdb'


@pytest.mark.parametrize('count, largest, removed', [
    (0, 1, 0), (1, 9, 0), (1, 90000, 0), (300, 6000, 100), (5000, 60, 1700), (40, 9, 40)])
def test_sound_ones_pass(tmp_path, count, largest, removed):
    file = make(tmp_path / 'x', count, max(largest, 1), removed)
    check_lmdb(tmp_path / 'x')
    check_lmdb(file)


def test_a_changed_file_is_looked_at_again(tmp_path):
    file = make(tmp_path / 'x', 20)
    check_lmdb(file)
    file.write_bytes(file.read_bytes()[:-4096])
    with pytest.raises(ValueError, match=r'truncated: \d+ of \d+ bytes'):
        check_lmdb(file)


def test_damaged_ones_never_end_the_process(tmp_path):
    whole, rng, paths = make(tmp_path / 'x', 120).read_bytes(), np.random.default_rng(1), []
    for index in range(60):
        data = np.frombuffer(whole, np.uint8).copy()
        if index % 2:
            data = data[:rng.integers(len(data))]
        else:
            data[rng.integers(0, len(data), 40)] ^= 1 << 3
        (tmp_path / str(index)).mkdir()
        (tmp_path / str(index) / 'data.mdb').write_bytes(data)
        paths.append(str(tmp_path / str(index)))
    found = subprocess.run([sys.executable, '-c', READ, *paths], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr  # not a signal
    assert found.stdout.split().count('refused') >= 30 and len(found.stdout.split()) == 60


class Bytes:
    """The bytes of a sound LMDB, and where things are in it."""

    def __init__(self, file):
        self.data = bytearray(file.read_bytes())
        self.meta = max((0, 4096), key=lambda page: self.read('<Q', page + 144))
        self.root = self.read('<Q', self.meta + 128) * 4096

    def read(self, form, at):
        return struct.unpack_from(form, self.data, at)[0]

    def write(self, form, at, value):
        struct.pack_into(form, self.data, at, value)

    def node(self, index=0):
        """Where an entry of the root page begins."""
        return self.root + self.read('<H', self.root + 16 + 2 * index)


FAULTS = {  # name -> (entries, size of the largest), change, message
    'short': ((1, 9), lambda file: file.data.__delitem__(slice(4095, None)), 'it has 4095 bytes'),
    'magic': ((1, 9), lambda file: file.write('<I', 16, 7), 'its header is wrong'),
    'magic of the second': ((1, 9), lambda file: file.write('<I', 4096 + 16, 7), 'its header is'),
    'version': ((1, 9), lambda file: file.write('<I', 20, 2), 'its header is wrong'),
    'page size': ((1, 9), lambda file: file.write('<I', 40, 4095), 'says pages of 4095 bytes'),
    'small pages': ((1, 9), lambda file: file.write('<I', 40, 128), 'says pages of 128 bytes'),
    'large pages': ((1, 9), lambda file: file.write('<I', 40, 1 << 17), 'pages of 131072 bytes'),
    'two page sizes': ((1, 9), lambda file: file.write('<I', 4096 + 40, 8192), 'header is wrong'),
    'flags': ((1, 9), lambda file: file.write('<H', 16 + 76, 0x80), 'its header is wrong'),
    'several values': ((1, 9), lambda file: file.write('<H', 16 + 76, 4), 'several values for a'),
    'entries': ((1, 9), lambda file: file.write('<Q', file.meta + 120, 2), 'expected 2 .*found 1'),
    'no depth': ((1, 9), lambda file: file.write('<H', file.meta + 94, 0), 'a depth of 0'),
    'depth': ((1, 9), lambda file: file.write('<H', file.meta + 94, 33), 'a depth of 33'),
    'another depth': ((1, 9), lambda file: file.write('<H', file.meta + 94, 2), 'not what it sho'),
    'root before all': ((1, 9), lambda file: file.write('<Q', file.meta + 128, 1), 'to page 1$'),
    'root after all': ((1, 9), lambda file: file.write('<Q', file.meta + 128, 9), 'to page 9$'),
    'number': ((1, 9), lambda file: file.write('<Q', file.root, 7), 'is not what it should be'),
    'odd bounds': ((1, 9), lambda file: file.write('<H', file.root + 12, 19), 'has wrong bounds'),
    'no entry': ((1, 9), lambda file: file.write('<H', file.root + 12, 16), 'has wrong bounds'),
    'bounds': ((1, 9), lambda file: file.write('<H', file.root + 14, 4097), 'has wrong bounds'),
    'crossed': ((1, 9), lambda file: file.write('<H', file.root + 14, 16), 'has wrong bounds'),
    'entry': ((1, 9), lambda file: file.write('<H', file.root + 16, 4089), 'an entry outside'),
    'entry in front': ((1, 9), lambda file: file.write('<H', file.root + 16, 16), 'entry outside'),
    'key': ((1, 9), lambda file: file.write('<H', file.node() + 6, 4000), 'a key that leaves'),
    'no key': ((1, 9), lambda file: file.write('<H', file.node() + 6, 0), 'a key of 0 bytes'),
    'long key': ((3, 1400), lambda file: file.write('<H', file.node(2) + 6, 512),
                 'a key of 512 bytes'),
    'value': ((1, 9), lambda file: file.write('<H', file.node(), 4000), 'a value that leaves'),
    'kind': ((1, 9), lambda file: file.write('<H', file.node() + 4, 2), 'value of an unknown kind'),
    'no room': ((1, 1), lambda file: file.write('<H', file.node() + 4, 1), 'a value that leaves'),
    'large value': ((1, 90000), lambda file: file.write('<H', file.node() + 2, 9),
                    r'a value of \d+ bytes on page \d+, which has \d+ pages'),
    'twice': ((400, 9), lambda file: file.write(
        '<H', file.node(1), file.read('<H', file.node(0))), 'for the second time'),
    'one branch': ((400, 9), lambda file: file.write('<H', file.root + 12, 18), 'wrong bounds'),
}


@pytest.mark.parametrize('name', FAULTS)
def test_what_is_wrong_is_said(tmp_path, name):
    (count, largest), change, message = FAULTS[name]
    path = make(tmp_path / 'x', count, largest)
    file = Bytes(path)
    change(file)
    path.write_bytes(file.data)
    with pytest.raises(ValueError, match=f'x is no LMDB or damaged: .*{message}'):
        check_lmdb(tmp_path / 'x')

"""What the check of an LMDB refuses, LMDB could not be trusted with; what it takes, LMDB reads."""
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

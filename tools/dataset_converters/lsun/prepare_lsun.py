"""LSUN: an LMDB such as cat or church_outdoor_train_lmdb, centre-cropped and resized to 256 x 256
-> data/lsun_cat or data/lsun_church, where the configs look for them.

    python tools/dataset_converters/lsun/prepare_lsun.py path/to/cat --out data/lsun_cat
"""
import os
import sys

os.environ.setdefault('OMP_NUM_THREADS', '1')  # one process per core: no threads below them

from mmpd.cli.converter import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main(None, __doc__, None, 256, test_count=1000))

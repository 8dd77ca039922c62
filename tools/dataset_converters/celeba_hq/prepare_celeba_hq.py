"""CelebA-HQ: a folder or zip file of PNG or JPEG images, or the imgHQ*.npy files that the official
release's script makes of its deltas -> data/celeba_hq, the paper's test set.

    python tools/dataset_converters/celeba_hq/prepare_celeba_hq.py path/to/celeba_hq --limit 1000
"""
import os
import sys

os.environ.setdefault('OMP_NUM_THREADS', '1')  # one process per core: no threads below them

from mmpd.cli.converter import main, refuse_deltas  # noqa: E402

if __name__ == '__main__':
    sys.exit(main(None, __doc__, 'data/celeba_hq', 1024, test_count=-1, check=refuse_deltas))

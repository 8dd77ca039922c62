"""FFHQ: images1024x1024, as a folder or a zip file -> data/ffhq.

    python tools/dataset_converters/ffhq/prepare_ffhq.py path/to/images1024x1024 --scale 8 16
"""
import os
import sys

os.environ.setdefault('OMP_NUM_THREADS', '1')  # one process per core: no threads below them

from mmpd.cli.converter import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main(None, __doc__, 'data/ffhq', 1024))

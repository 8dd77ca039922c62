"""The faces: a folder, or one file of them that travels."""
import re
import tarfile
from pathlib import Path

LEAST = dict(train=64, val=16)  # images
SIZE = 128
NAME = re.compile(r'(train|val)/[\w-][\w.-]*\.jpg')


def check(data):
    """Raise ValueError unless the folder holds faces as the configs take them."""
    from PIL import Image
    if not data.is_dir():
        raise ValueError(f'--data {data}: expected a folder with train and val, or a .tar file '
                         'of one, there is none')
    for split, least in LEAST.items():
        files = sorted((data / split).glob('*.jpg'))
        if len(files) < least:
            raise ValueError(f'--data {data}: expected at least {least} JPEG images in {split}, '
                             f'got {len(files)}')
        for file in (files[0], files[-1]):
            try:
                with Image.open(file) as image:
                    size = image.size
            except OSError as error:
                raise ValueError(f'--data: {file} is no image: {error}') from error
            if size != (SIZE, SIZE):
                raise ValueError(f'--data: expected {SIZE}x{SIZE} images, {file} is '
                                 f'{size[0]}x{size[1]}')


def pack(data, target):
    """Write the images of a folder into one .tar file; the same images give the same file."""
    target = Path(target)
    partial = target.with_name(f'{target.name}.partial')
    with tarfile.open(partial, 'w') as tar:
        for split in LEAST:
            for file in sorted((data / split).glob('*.jpg')):
                info = tarfile.TarInfo(f'{split}/{file.name}')
                info.size = file.stat().st_size
                with file.open('rb') as content:
                    tar.addfile(info, content)
    partial.replace(target)


def unpack(source, folder):
    """Unpack a file that :func:`pack` wrote, unless it has been.

    Raises:
        ValueError: if it is no such file; nothing but images in train and val is written.
    """
    facts = f'{source.stat().st_size} {source.stat().st_mtime_ns}'
    marker = folder / 'unpacked'
    if marker.is_file() and marker.read_text() == facts:
        return
    try:
        with tarfile.open(source, 'r:') as tar:
            for member in tar:
                if not (member.isreg() and NAME.fullmatch(member.name)):
                    raise ValueError(f'--data {source}: expected JPEG files in train and val '
                                     f'alone, got {member.name!r}')
                path = folder / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tar.extractfile(member).read())
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f'--data {source}: expected a .tar file made by --pack: {error}') from None
    marker.write_text(facts)

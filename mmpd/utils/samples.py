"""What MMagic's data samples say of themselves."""

__all__ = ['file_of']


def file_of(sample):
    """The file that a sample was made of: that of the GT, else of the LR, else any.

    Args:
        sample (DataSample): Or any object with ``all_keys`` and ``get``.

    Returns:
        str: The path, 'no file' where the sample names none.

    Example:
        >>> from types import SimpleNamespace
        >>> from mmpd.utils.samples import file_of
        >>> info = dict(img_path='lr/1.png', gt_path='gt/1.png')
        >>> file_of(SimpleNamespace(all_keys=info.keys, get=info.get))
        'gt/1.png'
    """
    paths = {key: sample.get(key) for key in sample.all_keys() if key.endswith('_path')}
    return str(paths.get('gt_path') or paths.get('img_path')
               or next(iter(paths.values()), None) or 'no file')

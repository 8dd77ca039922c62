"""The degradations A that the page offers, in its words."""
from ..utils.validation import check_choice

__all__ = ['AUTO', 'CHOICES', 'USUAL', 'operator_choice']

AUTO = 'auto: find out which A made the LR'
USUAL = 'average pooling'  # as in mmpd-infer and mmpd-make-consistent


def _resize(kernel, antialias=True, border='library'):
    return dict(type='SeparableResize', scale=None, kernel=kernel, antialias=antialias,
                border=border)


# what the visitor reads -> A ('auto': asked of the pictures), the library whose rounding counts
CHOICES = {
    AUTO: ('auto', None),
    USUAL: (dict(type='AveragePooling', scale=None), 'float'),
    'bicubic, by Pillow': (_resize('bicubic'), 'pil'),
    'bicubic, by MATLAB': (_resize('bicubic', border='mirror'), 'matlab'),
    'bicubic, by OpenCV (no antialias)': (_resize('bicubic', antialias=False), 'opencv'),
    'bilinear, by Pillow': (_resize('bilinear'), 'pil'),
    'bilinear, by OpenCV (no antialias)': (_resize('bilinear', antialias=False), 'opencv'),
    'Lanczos, by Pillow': (_resize('lanczos'), 'pil'),
}


def operator_choice(label):
    """(config or 'auto', library) of one of CHOICES; ArgumentError for another label."""
    check_choice(label, 'A', CHOICES)
    return CHOICES[label]

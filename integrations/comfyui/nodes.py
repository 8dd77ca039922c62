"""The exact colour fix as a node: an SR image that degrades to its LR image.

ComfyUI's images are (B, H, W, C), floating point in [0, 1].  They are rounded to the 8 bits that
its SaveImage writes, and come out as multiples of 1 / 255, which SaveImage gives back unchanged:
so the saved PNG is exactly consistent, not only the tensor.
"""
import torch

import mmpd
from mmpd.operators import resolve_operator
from mmpd.postprocess import identify

# name in the menu -> what mmpd.consistent takes, and by which library's rounding
OPERATORS = {
    'auto': ('auto', None),
    'average pooling': ('average_pooling', None),
    'bicubic (PIL, antialias)': ('bicubic', 'pil'),
    'bicubic (torch, antialias)': ('bicubic', 'torch'),
    'bicubic (OpenCV, alias)': (dict(type='SeparableResize', kernel='bicubic', antialias=False),
                                'opencv'),
    'bicubic (MATLAB)': (dict(type='SeparableResize', kernel='bicubic', border='mirror'),
                         'matlab'),
    'bilinear (PIL, antialias)': ('bilinear', 'pil'),
    'Lanczos (PIL, antialias)': ('lanczos', 'pil'),
    'nearest': (dict(type='SeparableResize', kernel='box', antialias=False), 'float'),
}


def to_uint8(images, name):
    """ComfyUI's images as uint8 (B, C, H, W), as SaveImage's clipping and nearest rounding have it.

    Raises:
        ValueError: Another type or shape, or values that are no numbers.
    """
    if not isinstance(images, torch.Tensor) or images.dim() != 4 \
            or not images.is_floating_point() or images.shape[3] not in (1, 3, 4):
        what = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
        raise ValueError(f'{name}: expected an IMAGE (B, H, W, 1, 3 or 4) in [0, 1], got {what}')
    if not torch.isfinite(images).all():
        raise ValueError(f'{name}: expected finite values, got NaN or infinity')
    values = (images.detach().float().cpu() * 255).clamp(0, 255).round()
    return values.to(torch.uint8).permute(0, 3, 1, 2)


def to_images(pixels):
    """uint8 (B, C, H, W) -> (B, H, W, C) in [0, 1] that SaveImage, which truncates, gives back."""
    return (pixels.permute(0, 2, 3, 1).float() / 255).contiguous()


def matched(image, lr):
    """One LR for every image of the batch.

    Raises:
        ValueError: Neither one LR nor as many as images.
    """
    if len(lr) not in (1, len(image)):
        raise ValueError(f'lr_image: expected 1 image, for all, or {len(image)} like sr_image, '
                         f'got {len(lr)}')
    return lr.expand(len(image), -1, -1, -1)


def check_sizes(image, lr):
    """Raise ValueError unless the image is one multiple of its LR, in sides and in channels."""
    (height, width), (h, w) = image.shape[2:], lr.shape[2:]
    if height % h or width % w or height // h != width // w or height <= h:
        swapped = ' (are they swapped?)' if height <= h and width <= w else ''
        raise ValueError(f'sr_image: expected a size that is one multiple, 2 or more, of the LR '
                         f'size {w}x{h}, e.g. {2 * w}x{2 * h}, got {width}x{height}{swapped}; '
                         'nothing is resized: put an ImageScale node before this one')
    if image.shape[1] != lr.shape[1]:
        raise ValueError(f'lr_image: expected {image.shape[1]} channels like sr_image, '
                         f'got {lr.shape[1]}')


def psnr(error):
    """dB of an error in grey levels, as text."""
    mse = error.double().square().mean()
    return 'exact' if mse == 0 else f'{10 * torch.log10(255**2 / mse):.2f} dB'


class MMPDConsistent:
    """Replace the colours and low frequencies of an SR image by those of the LR image, exactly."""
    CATEGORY = 'image/upscaling'
    DESCRIPTION = ('Exact colour fix: the nearest image that, downsampled, is the LR image again. '
                   'SR and LR must fit by an integer factor.')
    FUNCTION = 'apply'
    RETURN_TYPES = ('IMAGE', 'STRING')
    RETURN_NAMES = ('image', 'report')

    @classmethod
    def INPUT_TYPES(cls):
        """What ComfyUI draws."""
        return {'required': {
            'sr_image': ('IMAGE', {'tooltip': "any upscaler's result"}),
            'lr_image': ('IMAGE', {'tooltip': 'its input; one for all images, or one for each'}),
            'operator': (list(OPERATORS), {
                'default': 'average pooling',
                'tooltip': 'how the LR was made from a larger picture; auto guesses from SR and '
                           'LR. For a photo of unknown origin: average pooling'}),
            'strength': ('FLOAT', {'default': 1.0, 'min': 0.0, 'max': 1.0, 'step': 0.05,
                                   'tooltip': '1: exact; less trusts a noisy LR less'}),
            'noise_std': ('FLOAT', {'default': 0.0, 'min': 0.0, 'max': 255.0, 'step': 0.5,
                                    'tooltip': 'noise of the LR in grey levels (JPEG included); '
                                               'chooses the strength by itself, leave that at 1'}),
            'bounds': ('BOOLEAN', {'default': True,
                                   'tooltip': 'for strength below 1 or noise_std: the nearest '
                                              'image within black and white, instead of clipping '
                                              'afterwards. With strength 1 it always is that'}),
        }}

    def apply(self, sr_image, lr_image, operator, strength, noise_std, bounds):
        """The consistent images and a report."""
        image, lr = to_uint8(sr_image, 'sr_image'), to_uint8(lr_image, 'lr_image')
        check_sizes(image, lr)
        lr = matched(image, lr)
        if operator not in OPERATORS:
            raise ValueError(f'operator: expected one of {", ".join(OPERATORS)}, got {operator!r}')
        chosen, made_by = OPERATORS[operator]
        name = operator
        if chosen == 'auto':  # from all of them, once
            best = identify(list(zip(_arrays(lr), _arrays(image), strict=True)))[0]
            chosen, made_by, name = best.operator_cfg, best.made_by, f'{best.name} (auto)'
        result, unmatched = mmpd.consistent(
            image, lr, operator=chosen, strength=strength, noise_std=noise_std or None,
            bounds=(0, 255) if bounds else None, made_by=made_by, return_unmatched=True)
        config = {'type': 'AveragePooling'} if chosen == 'average_pooling' else \
            {'type': 'SeparableResize', 'kernel': chosen} if isinstance(chosen, str) else chosen
        A = resolve_operator(config, image.shape, lr.shape).A
        before, after = (psnr(A(part.double()) - lr) for part in (image, result))
        number = '1 image' if len(image) == 1 else f'{len(image)} images'
        missed = f'{unmatched} of {lr.numel()} LR values are not given back' if unmatched else \
            f'all {lr.numel()} LR values are given back'
        report = (f'{number}, A = {name}, scale {image.shape[2] // lr.shape[2]}\n'
                  f'PSNR(LR) {before} -> {after}\n{missed}')
        if not noise_std and strength == 1 and unmatched:
            report += ' (try another operator: average pooling gives all of them back)'
        return to_images(result), report


def _arrays(images):
    """uint8 (B, C, H, W) -> arrays (H, W, C)."""
    return [image.permute(1, 2, 0).contiguous().numpy() for image in images]


NODE_CLASS_MAPPINGS = {'MMPDConsistent': MMPDConsistent}
NODE_DISPLAY_NAME_MAPPINGS = {'MMPDConsistent': 'Exact Colour Fix (mmpd)'}

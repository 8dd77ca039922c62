"""Results of a diffusers pipeline (or any other) that degrade to the LR image exactly.

    from consistent_callback import ConsistentPipeline

    pipe = StableDiffusionUpscalePipeline.from_pretrained(...)
    pipe = ConsistentPipeline(pipe, operator='bicubic')
    image = pipe(prompt='...', image=lr).images[0]      # bicubic of it is lr

No callback in the denoising loop: the latents there are no pixels.  What the pipeline returns is
corrected, so it works with every pipeline that takes an LR image and returns ``images`` or a
tuple.  ``make_consistent`` does the same for images that are there already.  As a script:

    python consistent_callback.py LR.png SR.png OUT.png --operator average_pooling

diffusers is not needed, mmpd, torch and Pillow are.
"""
import argparse
import os
import sys

import numpy as np
import torch
from PIL import Image

import mmpd


def make_consistent(images, lr, **options):
    """The images nearest to ``images`` that degrade to ``lr``.

    Args:
        images (list | PIL.Image.Image | ndarray | Tensor): What pipelines return: PIL images
            (``output_type='pil'``), floating point arrays (N, H, W, C) ('np') or tensors
            (N, C, H, W) ('pt') in [0, 1].
        lr (PIL.Image.Image | list): One LR for all, or one for each.
        options: Of :func:`mmpd.consistent`: operator, strength, noise_std (in grey levels), ...

    Returns:
        list | PIL.Image.Image | ndarray | Tensor: Like ``images``; arrays and tensors are
        multiples of 1 / 255, which PNG files hold.

    Raises:
        ValueError: Other types, or as many LR images as fit neither way.
    """
    if isinstance(images, Image.Image):
        return make_consistent([images], lr, **options)[0]
    lrs = list(lr) if isinstance(lr, (list, tuple)) else [lr]
    if not all(isinstance(one, Image.Image) for one in lrs):
        raise ValueError('lr: expected a PIL image or a list of them, got '
                         f'{", ".join(sorted({type(one).__name__ for one in lrs}))}')
    if len(lrs) not in (1, len(images)):
        raise ValueError(f'lr: expected 1 image, for all, or {len(images)}, got {len(lrs)}')
    lrs = lrs * len(images) if len(lrs) == 1 else lrs
    if isinstance(images, torch.Tensor):
        arrays = images.detach().float().cpu().permute(0, 2, 3, 1).numpy()
        made = make_consistent(arrays, lrs, **options)
        return torch.from_numpy(made).permute(0, 3, 1, 2).to(images)
    if isinstance(images, np.ndarray):
        if images.ndim != 4 or images.dtype.kind != 'f':
            raise ValueError('images: expected floating point (N, H, W, C) in [0, 1], got '
                             f'{images.dtype} of shape {images.shape}')
        pixels = (images * 255).clip(0, 255).round().astype(np.uint8)
        pictures = [Image.fromarray(one[..., 0] if one.shape[2] == 1 else one) for one in pixels]
        made = [np.asarray(one) for one in make_consistent(pictures, lrs, **options)]
        return (np.stack(made).reshape(images.shape) / 255).astype(images.dtype)
    if not all(isinstance(one, Image.Image) for one in images):
        raise ValueError('images: expected PIL images, an array or a tensor, got '
                         f'{type(images).__name__} of {type(images[0]).__name__}')
    return [mmpd.consistent(one, small, **options) for one, small in zip(images, lrs, strict=True)]


class ConsistentPipeline:
    """A pipeline whose results are consistent with the LR image that it is given.

    Args:
        pipe (Callable): The pipeline.
        lr_argument (str): By which name the pipeline takes the LR image.
        options: Of :func:`mmpd.consistent`.
    """

    def __init__(self, pipe, lr_argument='image', **options):
        self.pipe, self.lr_argument, self.options = pipe, lr_argument, options

    def __getattr__(self, name):
        if name == 'pipe':  # while it is being unpickled or copied
            raise AttributeError(name)
        return getattr(self.pipe, name)  # to(), enable_..., components

    def __call__(self, *args, lr=None, **kwargs):
        """Run the pipeline.

        Args:
            args, kwargs: The pipeline's.
            lr (PIL.Image.Image | list, optional): The LR image, where the pipeline is given another
                one (enlarged beforehand, say). Defaults to what it is given.

        Returns:
            object: What the pipeline returns, with other images in it.

        Raises:
            ValueError: There is no LR, or the result is no image, such as latents.
        """
        lr = kwargs.get(self.lr_argument) if lr is None else lr
        if lr is None:
            raise ValueError(f'{self.lr_argument}: expected the LR image under this name (or '
                             'lr=...), got none')
        if kwargs.get('output_type') == 'latent':
            raise ValueError("output_type: expected 'pil', 'np' or 'pt', got 'latent'")
        output = self.pipe(*args, **kwargs)
        if isinstance(output, tuple):  # return_dict=False
            return (make_consistent(output[0], lr, **self.options), *output[1:])
        output.images = make_consistent(output.images, lr, **self.options)
        return output


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('lr'), parser.add_argument('sr'), parser.add_argument('out')
    parser.add_argument('--operator', default='average_pooling')
    args = parser.parse_args(argv)
    if not args.out.lower().endswith('.png'):
        parser.error(f'out: expected a PNG file, got {args.out}')
    if os.path.lexists(args.out):
        parser.error(f'out: {args.out} exists')
    try:
        with Image.open(args.lr) as lr, Image.open(args.sr) as sr:
            made = make_consistent(sr, lr, operator=args.operator)
        made.save(args.out)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == '__main__':
    sys.exit(main())

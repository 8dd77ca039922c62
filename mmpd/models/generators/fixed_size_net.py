"""Restorers whose network works at a size of its own: the LR is enlarged to it first."""
import torch.nn.functional as F
from mmengine.model import BaseModule

from ...utils.validation import MOST_CHANNELS, check_choice, check_positive_int, refuse
from ..settings import check_init_cfg
from .glean_net import check_lr

KERNELS = ('bilinear', 'bicubic', 'nearest')


def enlarge(image, size, kernel):
    """Enlarge (N, C, h, w) to (N, C, size, size); pixel centres as in PIL and OpenCV."""
    if image.shape[-2:] == (size, size):
        return image
    return F.interpolate(image, size=(size, size), mode=kernel,
                         align_corners=None if kernel == 'nearest' else False)


class FixedSizeNet(BaseModule):
    """Base of restorers that take an image as large as, or larger than, what they should enlarge.

    GPEN, GFP-GAN and pSp restore an image of 256 to 1024 pixels. As a super-resolver the LR is
    enlarged to that size before, and the result to ``out_size`` behind. Neither is seen by PD,
    which compares with the LR itself. A subclass gives ``restore``.

    Args:
        in_size (int): Side of the LR image.
        out_size (int): Side of the output, a multiple of it.
        net_in (int): Side of the network's input, at least in_size.
        net_out (int): Side of the network's output, at most out_size.
        in_kernel (str): How the LR is enlarged: 'bilinear' (what the official code of all three
            does), 'bicubic' (a = -0.75) or 'nearest'.
        out_kernel (str): The same for the result.
        init_cfg (dict, optional): See ``BaseModule``.

    Raises:
        ValueError: for sizes that do not follow each other, or an unknown kernel.
    """

    def __init__(self, in_size, out_size, net_in, net_out, in_kernel='bilinear',
                 out_kernel='bicubic', init_cfg=None):
        super().__init__(init_cfg=check_init_cfg(init_cfg))
        for name, size in (('in_size', in_size), ('out_size', out_size)):
            check_positive_int(size, name, most=MOST_CHANNELS)
        if in_size >= out_size or out_size % in_size:
            refuse('out_size', f'a multiple of in_size={in_size}, larger than it', out_size)
        if in_size > net_in or out_size < net_out:
            raise ValueError(f'{type(self).__name__} makes {net_out}x{net_out} of {net_in}x{net_in}'
                             f': expected in_size of at most {net_in} and out_size of at least '
                             f'{net_out}, got {in_size} and {out_size}')
        for name, kernel in (('in_kernel', in_kernel), ('out_kernel', out_kernel)):
            check_choice(kernel, name, KERNELS)
        self.in_size, self.out_size, self.net_in = in_size, out_size, net_in
        self.in_kernel, self.out_kernel = in_kernel, out_kernel

    def restore(self, image):
        """(N, 3, net_in, net_in) -> (N, 3, net_out, net_out), both in [-1, 1]."""
        raise NotImplementedError

    def forward(self, lr):
        """Super-resolve.

        Args:
            lr (Tensor): (N, 3, in_size, in_size), in [-1, 1].

        Returns:
            Tensor: (N, 3, out_size, out_size).

        Raises:
            ValueError: for another size.
        """
        check_lr(lr, self.in_size)
        restored = self.restore(enlarge(lr, self.net_in, self.in_kernel))
        return enlarge(restored, self.out_size, self.out_kernel)

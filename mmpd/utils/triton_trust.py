"""Where Triton kernels are used: on devices on which they gave what plain PyTorch gives."""
import importlib.util
import logging
from functools import lru_cache

import torch

__all__ = ['DTYPES', 'Trust', 'installed', 'require_same']

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@lru_cache(maxsize=1)
def installed():
    """Whether Triton can be imported.

    Example:
        >>> from mmpd.utils.triton_trust import installed
        >>> installed() in (True, False)
        True
    """
    return importlib.util.find_spec('triton') is not None


def require_same(apart, dtype, what):
    """Raise RuntimeError unless a kernel's result is as near as its rounding.

    Args:
        apart (float): Largest difference, of values of about 1.
        dtype (torch.dtype): Of the result.
        what (str): Of what case, for the message.

    Example:
        >>> import torch
        >>> from mmpd.utils.triton_trust import require_same
        >>> require_same(1e-6, torch.float32, 'scale 8')
        >>> require_same(float('nan'), torch.float32, 'scale 8')
        Traceback (most recent call last):
        RuntimeError: its result is not that of plain PyTorch for scale 8 (they are nan apart)
    """
    tolerance = 1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    if not apart <= tolerance:
        raise RuntimeError(f'its result is not that of plain PyTorch for {what} (they are '
                           f'{apart:.2g} apart)')


class Trust:
    """The kernels of one purpose, which a device gives up together at the first failure.

    Args:
        name (str): What the log calls them.

    Example:
        >>> import torch
        >>> from mmpd.utils.triton_trust import Trust
        >>> trust, device = Trust('the Triton kernel of sums'), torch.device('cpu')
        >>> trust.run(device, (torch.float32, ), lambda: None, lambda: 3)
        (True, 3)
    """

    def __init__(self, name):
        self.name = name
        self.failures = {}  # device -> why they are not used there
        self.verified = set()  # (device, *variant) for which they give what they should

    def usable(self, device, variant):
        """Whether this variant may be launched on the device now.

        Args:
            device (torch.device): Of the tensors, with its index.
            variant (tuple): What the kernel is compiled for.
        """
        return (installed() and device not in self.failures
                # a graph that is being captured could not wait for the comparison
                and ((device, *variant) in self.verified
                     or not torch.cuda.is_current_stream_capturing()))

    def run(self, device, variant, verify, launch):
        """What ``launch()`` returns, after ``verify()`` where the variant is new to the device.

        Triton compiles a kernel when it is first launched, for which it needs a C compiler.
        Where that fails, or the result is not the plain path's, the log says so once, and
        ``usable`` is False for that device from then on.

        Args:
            device (torch.device): Of the tensors.
            variant (tuple): What the kernel is compiled for.
            verify (Callable): Raises unless the kernel computes what plain PyTorch does.
            launch (Callable): Runs the kernel.

        Returns:
            tuple[bool, Any]: Whether it was done, and what ``launch`` returned.
        """
        try:
            if (device, *variant) not in self.verified:
                verify()
                self.verified.add((device, *variant))
            return True, launch()
        except Exception as reason:  # no compiler, another version of Triton, another GPU
            if 'out of memory' in str(reason).lower():  # the plain path would need as much
                raise
            self.failures[device] = reason
            logging.getLogger(__name__).warning('%s cannot be used on %s, plain PyTorch runs '
                                                'instead: %s', self.name, device, reason)
            return False, None

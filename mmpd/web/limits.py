"""What a visitor of the web page may ask for."""
from dataclasses import dataclass

from ..utils.validation import check_number, check_positive_int

__all__ = ['Limits']


@dataclass(frozen=True)
class Limits:
    """Bounds of one visit; checked when they are made.

    Attributes:
        upload_mb (float): Of one file, in MB (10⁶ bytes).
        megapixels (float): Of a picture, in 10⁶ pixels, looked up in its header before it is
            decoded.
        lr_megapixels (float): Of an LR that a model has to enlarge.
        seconds (float): Of one computation, which is stopped then.
        queue (int): Visitors who may wait.
        keep_minutes (float): After which a visitor's files are deleted.
        disk_mb (float): Of all visitors' files together; nothing more is taken in above it.

    Raises:
        ArgumentError: for what is not positive.

    Example:
        >>> from mmpd.web.limits import Limits
        >>> Limits(upload_mb=5).upload_bytes
        5000000
    """
    upload_mb: float = 20
    megapixels: float = 16
    lr_megapixels: float = 0.3
    seconds: float = 300
    queue: int = 8
    keep_minutes: float = 60
    disk_mb: float = 2000

    def __post_init__(self):
        for name in ('upload_mb', 'megapixels', 'lr_megapixels', 'seconds', 'keep_minutes',
                     'disk_mb'):
            check_number(getattr(self, name), name, above=0)
        check_positive_int(self.queue, 'queue')

    @property
    def upload_bytes(self):
        """Of one file."""
        return int(self.upload_mb * 1e6)

    @property
    def pixels(self):
        """Of a picture."""
        return int(self.megapixels * 1e6)

    @property
    def lr_pixels(self):
        """Of an LR that a model has to enlarge."""
        return int(self.lr_megapixels * 1e6)

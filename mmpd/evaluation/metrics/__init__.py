from .consistency import LRConsistency
from .fid import SRFID
from .lpips import LPIPS
from .ms_ssim import PairedMSSSIM

__all__ = ['LPIPS', 'LRConsistency', 'PairedMSSSIM', 'SRFID']

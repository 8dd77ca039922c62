import torch

import mmpd  # noqa: F401  before mmagic, whose import needs mmcv's compiled ops or their stand-ins

torch.set_num_threads(2)

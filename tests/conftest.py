import torch
from mmengine.registry import init_default_scope

import mmpd  # noqa: F401  before mmagic, whose import needs mmcv's compiled ops or their stand-ins

torch.set_num_threads(2)
init_default_scope('mmagic')  # as a config's default_scope does

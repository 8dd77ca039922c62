# GPEN-BFR-512, the largest that was public when the paper was written; 512 px brought to 1024
_base_ = [
    '../_base_/models/restorer.py',
    '../_base_/datasets/celeba-hq_x16_test.py',
    '../_base_/default_runtime.py',
]

model = dict(generator=dict(type='GPENNet', net_size=512))

# GFP-GAN 1.2, 1.3 and 1.4; 512 px brought to 1024
_base_ = [
    '../_base_/models/restorer.py',
    '../_base_/datasets/celeba-hq_x16_test.py',
    '../_base_/default_runtime.py',
]

model = dict(generator=dict(type='GFPGANNet', net_size=512))

# GFP-GAN 1, the network of its paper; 512 px brought to 1024
_base_ = [
    '../_base_/models/restorer.py',
    '../_base_/datasets/celeba-hq_x16_test.py',
    '../_base_/default_runtime.py',
]

model = dict(generator=dict(
    type='GFPGANNet', net_size=512, fir=True, channel_multiplier=1))

# 16 -> 128 px, wider: for a GPU
_base_ = './reduced.py'

channels = {4: 256, 8: 256, 16: 256, 32: 256, 64: 128, 128: 64}
model = dict(
    generator=dict(
        in_size=16, out_size=128, style_channels=256, rrdb_channels=48, num_rrdbs=4,
        channels=channels),
    discriminator=dict(in_size=128, channels=channels))

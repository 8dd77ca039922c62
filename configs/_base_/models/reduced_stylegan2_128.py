_base_ = './reduced_stylegan2.py'

channels = {4: 256, 8: 256, 16: 256, 32: 256, 64: 128, 128: 64}
model = dict(
    generator=dict(out_size=128, style_channels=256, channels=channels),
    discriminator=dict(in_size=128, channels=channels))

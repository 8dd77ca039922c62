_base_ = './gan_prior_sr.py'

model = dict(
    generator=dict(type='GLEANNet', style_channels=512),
    pixel_loss=dict(type='MSELoss', loss_weight=1.0, reduction='mean'))

_base_ = './gan_prior_sr.py'

model = dict(
    generator=dict(type='PaniniNet', style_channels=512),
    pixel_loss=dict(type='L1Loss', loss_weight=1.0, reduction='mean'))

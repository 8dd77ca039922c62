# GLEAN without decoder, random latents, PD, adversarial loss only
_base_ = './gan_prior_sr.py'

model = dict(
    type='PDN',
    generator=dict(type='PDNNet', style_channels=512),
    perceptual_loss=None)

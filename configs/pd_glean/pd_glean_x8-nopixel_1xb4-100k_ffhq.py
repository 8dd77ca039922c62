# Ablation: PD in place of the pixel losses
_base_ = '../glean/glean_x8_1xb4-100k_ffhq.py'

model = dict(type='PDGLEAN', pixel_loss=None, perceptual_loss=None)

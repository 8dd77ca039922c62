# Ablation: PD in place of the pixel losses
_base_ = './pd_glean_x8_1xb4-100k_ffhq.py'

model = dict(pixel_loss=None, perceptual_loss=None)

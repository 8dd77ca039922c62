_base_ = '../glean/glean_x16_1xb4-300k_cat.py'

model = dict(type='PDGLEAN', gan_loss=dict(loss_weight=1e-3))

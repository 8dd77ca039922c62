_base_ = '../panini/panini_x16_1xb4-300k_church.py'

model = dict(type='PDPanini', gan_loss=dict(loss_weight=1e-3))

# Fig. 8: real-world degradations, trained on bicubic(antialias) only
_base_ = [
    '../_base_/models/pdn.py',
    '../_base_/priors/ffhq_x16.py',
    '../_base_/datasets/ffhq_x16.py',
    '../_base_/schedules/300k.py',
    '../_base_/default_runtime.py',
]

model = _base_.pop('prior')
model.gan_loss = dict(loss_weight=1e-3)

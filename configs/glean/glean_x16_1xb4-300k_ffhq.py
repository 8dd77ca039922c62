_base_ = [
    '../_base_/models/glean.py',
    '../_base_/priors/ffhq_x16.py',
    '../_base_/datasets/ffhq_x16.py',
    '../_base_/schedules/300k.py',
    '../_base_/default_runtime.py',
]

model = _base_.pop('prior')

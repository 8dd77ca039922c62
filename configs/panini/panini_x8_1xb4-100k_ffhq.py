_base_ = [
    '../_base_/models/panini.py',
    '../_base_/priors/ffhq_x8.py',
    '../_base_/datasets/ffhq_x8.py',
    '../_base_/schedules/100k.py',
    '../_base_/default_runtime.py',
]

model = _base_.pop('prior')

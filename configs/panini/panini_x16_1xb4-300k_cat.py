_base_ = [
    '../_base_/models/panini.py',
    '../_base_/priors/cat_x16.py',
    '../_base_/datasets/cat_x16.py',
    '../_base_/schedules/300k.py',
    '../_base_/default_runtime.py',
]

model = _base_.pop('prior')

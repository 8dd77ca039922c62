_base_ = [
    '../_base_/models/glean.py',
    '../_base_/priors/church_x8.py',
    '../_base_/datasets/church_x8.py',
    '../_base_/schedules/100k.py',
    '../_base_/default_runtime.py',
]

model = _base_.pop('prior')

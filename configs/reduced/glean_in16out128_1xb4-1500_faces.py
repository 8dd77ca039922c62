_base_ = [
    '../_base_/models/reduced_128.py',
    '../_base_/datasets/faces128_x8.py',
    '../_base_/schedules/800.py',
    '../_base_/reduced_runtime.py',
]

train_cfg = dict(max_iters=1500)
param_scheduler = dict(T_max=1500)

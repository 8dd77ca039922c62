_base_ = [
    '../_base_/models/restorer.py',
    '../_base_/datasets/celeba-hq_x16_test.py',
    '../_base_/default_runtime.py',
]

model = dict(generator=dict(type='PSPNet'))

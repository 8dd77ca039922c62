_base_ = [
    '../_base_/models/tiny.py',
    '../_base_/datasets/demo_x8.py',
    '../_base_/schedules/400.py',
    '../_base_/demo_runtime.py',
]

model = dict(
    generator=dict(type='PaniniNet'),
    pixel_loss=dict(type='L1Loss', loss_weight=1.0, reduction='mean'))

_base_ = '../glean/glean_in8out64-tiny_1xb8-400_demo.py'

model = dict(
    generator=dict(type='PaniniNet'),
    pixel_loss=dict(type='L1Loss', loss_weight=1.0, reduction='mean'))

_base_ = './glean_in8out64_1xb4-400_faces.py'

model = dict(
    generator=dict(type='PaniniNet'),
    pixel_loss=dict(type='L1Loss', loss_weight=1.0, reduction='mean'))

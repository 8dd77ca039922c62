_base_ = './glean_in8out64_1xb4-800_faces.py'

model = dict(type='PDN', generator=dict(type='PDNNet'), pixel_loss=None)

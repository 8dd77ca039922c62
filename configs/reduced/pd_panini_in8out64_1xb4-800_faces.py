_base_ = './panini_in8out64_1xb4-800_faces.py'

model = dict(type='PDPanini')

_base_ = './panini_in8out64_1xb4-400_faces.py'

model = dict(type='PDPanini')

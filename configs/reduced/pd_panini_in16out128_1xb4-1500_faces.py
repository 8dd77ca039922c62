_base_ = './panini_in16out128_1xb4-1500_faces.py'

model = dict(type='PDPanini')

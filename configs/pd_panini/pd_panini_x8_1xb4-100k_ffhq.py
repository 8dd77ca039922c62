_base_ = '../panini/panini_x8_1xb4-100k_ffhq.py'

model = dict(type='PDPanini')

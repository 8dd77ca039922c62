_base_ = '../panini/panini_x8_1xb4-100k_cat.py'

model = dict(type='PDPanini')

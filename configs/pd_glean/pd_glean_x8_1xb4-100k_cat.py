_base_ = '../glean/glean_x8_1xb4-100k_cat.py'

model = dict(type='PDGLEAN')

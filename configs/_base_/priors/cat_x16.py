_base_ = './cat_x8.py'

prior = dict(generator=dict(in_size=16))

_base_ = './ffhq_x8.py'

prior = dict(generator=dict(in_size=64))

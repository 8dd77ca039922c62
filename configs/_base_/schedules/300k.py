_base_ = './100k.py'

train_cfg = dict(max_iters=300_000)
param_scheduler = dict(T_max=300_000)

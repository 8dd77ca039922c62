_base_ = './default_runtime.py'

default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=200))
randomness = dict(seed=2023)

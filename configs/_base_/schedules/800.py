_base_ = './100k.py'

train_cfg = dict(max_iters=800, val_interval=20)
optim_wrapper = dict(generator=dict(optimizer=dict(lr=1e-3)))
param_scheduler = dict(T_max=800, eta_min=1e-5)

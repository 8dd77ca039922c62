train_cfg = dict(type='IterBasedTrainLoop', max_iters=300_000, val_interval=5000)

# The paper's text says 1e-3; the official GLEAN and Panini configs, which it follows, use 1e-4.
optim_wrapper = dict(
    constructor='MultiOptimWrapperConstructor',
    generator=dict(
        type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4, betas=(0.9, 0.99))),
    discriminator=dict(
        type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4, betas=(0.9, 0.99))))
param_scheduler = dict(
    type='CosineAnnealingLR', by_epoch=False, T_max=300_000, eta_min=1e-7)

# A reduced GLEAN for two CPU cores: 8 -> 64 px, few channels, no pretrained prior (it is trained
# along), no perceptual loss (its VGG weights are a download). Same code path as the full one.
_base_ = ['../_base_/datasets/demo_x8.py', '../_base_/default_runtime.py']

model = dict(
    type='GANPriorSR',
    generator=dict(
        type='GLEANNet',
        in_size=8,
        out_size=64,
        style_channels=64,
        num_mlps=2,
        rrdb_channels=24,
        num_rrdbs=2,
        channels={4: 48, 8: 48, 16: 48, 32: 32, 64: 24},
        freeze_prior=False),
    discriminator=dict(
        type='UNetDiscriminatorWithSpectralNorm', in_channels=3, mid_channels=16),
    pixel_loss=dict(type='MSELoss', loss_weight=1.0, reduction='mean'),
    gan_loss=dict(
        type='GANLoss',
        gan_type='vanilla',
        loss_weight=1e-3,
        real_label_val=1.0,
        fake_label_val=0),
    train_cfg=dict(),
    test_cfg=dict(),
    data_preprocessor=dict(
        type='DataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]))

train_cfg = dict(type='IterBasedTrainLoop', max_iters=400, val_interval=200)
optim_wrapper = dict(
    constructor='MultiOptimWrapperConstructor',
    generator=dict(
        type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3, betas=(0.9, 0.99))),
    discriminator=dict(
        type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4, betas=(0.9, 0.99))))
param_scheduler = dict(type='CosineAnnealingLR', by_epoch=False, T_max=400, eta_min=1e-5)
default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(interval=200))
randomness = dict(seed=2023)

# GLEAN and its kin at 8 -> 64 px for two CPU cores, on the prior that stylegan2_64_* trains; no
# perceptual loss (its VGG weights are a download).
channels = {4: 96, 8: 96, 16: 64, 32: 32, 64: 16}
prior = 'work_dirs/reduced/prior.pth'
model = dict(
    type='GANPriorSR',
    generator=dict(
        type='GLEANNet',
        in_size=8,
        out_size=64,
        style_channels=64,
        num_mlps=4,
        rrdb_channels=24,
        num_rrdbs=2,
        channels=channels,
        init_cfg=dict(type='Pretrained', checkpoint=prior, prefix='generator_ema')),
    discriminator=dict(
        type='StyleGAN2Discriminator',
        in_size=64,
        channels=channels,
        init_cfg=dict(type='Pretrained', checkpoint=prior, prefix='discriminator')),
    pixel_loss=dict(type='MSELoss', loss_weight=1.0, reduction='mean'),
    gan_loss=dict(
        type='GANLoss',
        gan_type='vanilla',
        loss_weight=1e-2,
        real_label_val=1.0,
        fake_label_val=0),
    train_cfg=dict(),
    test_cfg=dict(),
    data_preprocessor=dict(
        type='DataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]))

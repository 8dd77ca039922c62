# A reduced GLEAN for two CPU cores: 8 -> 64 px, few channels, no pretrained prior (it is trained
# along), no perceptual loss (its VGG weights are a download). Same code path as the full one.
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

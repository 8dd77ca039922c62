# A StyleGAN2 small enough for two CPU cores, MMagic's own model type and losses
channels = {4: 96, 8: 96, 16: 64, 32: 32, 64: 16}
model = dict(
    type='StyleGAN2',
    generator=dict(
        type='StyleGAN2Prior', out_size=64, style_channels=64, num_mlps=4, channels=channels),
    discriminator=dict(type='StyleGAN2Discriminator', in_size=64, channels=channels),
    ema_config=dict(type='ExponentialMovingAverage', interval=1, momentum=0.01),
    # R1 with gamma = 0.5, lazily, as config-f does
    loss_config=dict(
        r1_loss_weight=0.5 / 2 * 16, r1_interval=16, norm_mode='HWC',
        g_reg_interval=16, g_reg_weight=2.0 * 16, pl_batch_shrink=4),
    data_preprocessor=dict(
        type='DataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]))

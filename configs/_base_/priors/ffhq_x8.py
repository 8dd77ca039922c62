# StyleGAN2 of FFHQ, for 128 to 1024 px: where generator and discriminator start.
# A config takes it with `model = _base_.pop('prior')`, so that no `prior` is left behind.
stylegan2 = ('https://download.openmmlab.com/mmediting/stylegan2/official_weights/'
             'stylegan2-ffhq-config-f-official_20210327_171224-bce9310c.pth')
prior = dict(
    generator=dict(
        in_size=128,
        out_size=1024,
        init_cfg=dict(type='Pretrained', checkpoint=stylegan2, prefix='generator_ema')),
    discriminator=dict(
        in_size=1024,
        init_cfg=dict(type='Pretrained', checkpoint=stylegan2, prefix='discriminator')))

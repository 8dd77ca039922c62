# StyleGAN2 of LSUN church, for 32 to 256 px: where generator and discriminator start.
# A config takes it with `model = _base_.pop('prior')`, so that no `prior` is left behind.
stylegan2 = ('https://download.openmmlab.com/mmediting/stylegan2/official_weights/'
             'stylegan2-church-config-f-official_20210327_172657-1d42b7d1.pth')
prior = dict(
    generator=dict(
        in_size=32,
        out_size=256,
        init_cfg=dict(type='Pretrained', checkpoint=stylegan2, prefix='generator_ema')),
    discriminator=dict(
        in_size=256,
        init_cfg=dict(type='Pretrained', checkpoint=stylegan2, prefix='discriminator')))

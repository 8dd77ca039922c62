# Fig. 8: real-world degradations, trained on bicubic(antialias) only
_base_ = [
    '../_base_/models/pdn.py',
    '../_base_/datasets/ffhq_x16.py',
    '../_base_/schedules/300k.py',
    '../_base_/default_runtime.py',
]

stylegan2 = ('https://download.openmmlab.com/mmediting/stylegan2/official_weights/'
             'stylegan2-ffhq-config-f-official_20210327_171224-bce9310c.pth')
model = dict(
    generator=dict(
        in_size=64,
        out_size=1024,
        init_cfg=dict(type='Pretrained', checkpoint=stylegan2, prefix='generator_ema')),
    discriminator=dict(
        in_size=1024,
        init_cfg=dict(type='Pretrained', checkpoint=stylegan2, prefix='discriminator')),
    gan_loss=dict(loss_weight=1e-3))

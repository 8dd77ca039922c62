# Table 4
_base_ = [
    '../_base_/models/pdn.py',
    '../_base_/datasets/ffhq_x8-alias.py',
    '../_base_/schedules/100k.py',
    '../_base_/default_runtime.py',
]

stylegan2 = ('https://download.openmmlab.com/mmediting/stylegan2/official_weights/'
             'stylegan2-ffhq-config-f-official_20210327_171224-bce9310c.pth')
model = dict(
    generator=dict(
        in_size=128,
        out_size=1024,
        init_cfg=dict(type='Pretrained', checkpoint=stylegan2, prefix='generator_ema')),
    discriminator=dict(
        in_size=1024,
        init_cfg=dict(type='Pretrained', checkpoint=stylegan2, prefix='discriminator')))

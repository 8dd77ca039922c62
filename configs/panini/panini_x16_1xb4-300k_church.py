_base_ = [
    '../_base_/models/panini.py',
    '../_base_/datasets/church_x16.py',
    '../_base_/schedules/300k.py',
    '../_base_/default_runtime.py',
]

stylegan2 = ('https://download.openmmlab.com/mmediting/stylegan2/official_weights/'
             'stylegan2-church-config-f-official_20210327_172657-1d42b7d1.pth')
model = dict(
    generator=dict(
        in_size=16,
        out_size=256,
        init_cfg=dict(type='Pretrained', checkpoint=stylegan2, prefix='generator_ema')),
    discriminator=dict(
        in_size=256,
        init_cfg=dict(type='Pretrained', checkpoint=stylegan2, prefix='discriminator')))

# The multi-degradation variant, with the official code's sizes, losses and schedule. Degradations:
# see the first stage, panini_degradation-moco_1xb32-438k_ffhq. PD does not apply: A is not known.
_base_ = [
    '../_base_/models/panini.py',
    '../_base_/datasets/ffhq_x8.py',
    '../_base_/schedules/300k.py',
    '../_base_/default_runtime.py',
]

stylegan2 = ('https://download.openmmlab.com/mmediting/stylegan2/official_weights/'
             'stylegan2-ffhq-config-f-official_20210327_171224-bce9310c.pth')
moco = 'work_dirs/panini_degradation-moco_1xb32-438k_ffhq/iter_437500.pth'
model = dict(
    generator=dict(
        in_size=512,
        out_size=1024,
        fuse_size=64,
        rrdb_channels=8,
        num_rrdbs=2,
        reduction=2,
        degradation_encoder=dict(
            type='DegradationEncoder',
            init_cfg=dict(type='Pretrained', checkpoint=moco, prefix='encoder_q')),
        init_cfg=dict(type='Pretrained', checkpoint=stylegan2, prefix='generator_ema')),
    discriminator=dict(
        in_size=1024,
        init_cfg=dict(type='Pretrained', checkpoint=stylegan2, prefix='discriminator')))

size = 512
load_gt = dict(type='LoadImageFromFile', key='gt', color_type='color', channel_order='rgb')
degradation = [
    dict(type='CopyValues', src_keys=['gt'], dst_keys=['img']),
    dict(
        type='RandomResize', keys=['img'],
        params=dict(target_size=(size, size), resize_opt=['area'], resize_prob=[1.0])),
    dict(
        type='RandomBlur', keys=['img'],
        params=dict(kernel_size=[41], kernel_list=['iso', 'aniso'], kernel_prob=[0.5, 0.5],
                    sigma_x=[0.1, 10], sigma_y=[0.1, 10])),
    dict(
        type='RandomResize', keys=['img'],
        params=dict(resize_mode_prob=[0, 1, 0], resize_scale=[0.125, 1],
                    resize_opt=['bilinear', 'area', 'bicubic'], resize_prob=[1 / 3] * 3)),
    dict(
        type='RandomNoise', keys=['img'],
        params=dict(noise_type=['gaussian'], noise_prob=[1.0], gaussian_sigma=[0, 20],
                    gaussian_gray_noise_prob=0.0)),
    dict(type='RandomJPEGCompression', keys=['img'], params=dict(quality=[60, 100])),
    dict(
        type='RandomResize', keys=['img'],
        params=dict(target_size=(size, size), resize_opt=['bilinear'], resize_prob=[1.0])),
]
flip = dict(type='Flip', keys=['gt'], flip_ratio=0.5, direction='horizontal')
train_dataloader = dict(
    batch_size=1,
    dataset=dict(pipeline=[load_gt, flip, *degradation, dict(type='PackInputs')]))
val_dataloader = dict(dataset=dict(pipeline=[load_gt, *degradation, dict(type='PackInputs')]))
test_dataloader = val_dataloader
val_evaluator = [dict(type='MAE'), dict(type='PSNR'), dict(type='SSIM')]
test_evaluator = val_evaluator

train_cfg = dict(max_iters=800_000)
param_scheduler = dict(T_max=800_000)

# The multi-degradation variant, with the official code's sizes, losses and schedule. Degradations:
# see the first stage, panini_degradation-moco_1xb32-438k_ffhq. PD does not apply: A is not known.
_base_ = [
    '../_base_/models/panini.py',
    '../_base_/priors/ffhq_x8.py',
    '../_base_/datasets/ffhq_x8.py',
    '../_base_/datasets/degradation.py',
    '../_base_/schedules/300k.py',
    '../_base_/default_runtime.py',
]

moco = 'work_dirs/panini_degradation-moco_1xb32-438k_ffhq/iter_437500.pth'
model = _base_.pop('prior')
model.generator.update(
    in_size=512,
    fuse_size=64,
    rrdb_channels=8,
    num_rrdbs=2,
    reduction=2,
    degradation_encoder=dict(
        type='DegradationEncoder',
        init_cfg=dict(type='Pretrained', checkpoint=moco, prefix='encoder_q')))

load_gt = dict(type='LoadImageFromFile', key='gt', color_type='color', channel_order='rgb')
degradation = [
    dict(type='CopyValues', src_keys=['gt'], dst_keys=['img']),
    *_base_.degradation,
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

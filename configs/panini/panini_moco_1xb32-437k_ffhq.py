# Contrastive pre-training of the degradation encoder (first stage of the MFR variant). The MoCo
# settings are those of the published code (200 epochs of 70,000 images); its degraded images are
# not published, nor how they were made: the ranges here are those of GFP-GAN.
_base_ = '../_base_/default_runtime.py'

crop_size = (256, 256)
resize = dict(
    type='RandomResize',
    params=dict(target_size=(512, 512), resize_opt=['area'], resize_prob=[1]),
    keys=['img'])
train_pipeline = [
    dict(type='LoadImageFromFile', key='img', color_type='color', channel_order='rgb'),
    resize,
    dict(
        type='RandomBlur',
        params=dict(
            kernel_size=[41],
            kernel_list=['iso', 'aniso'],
            kernel_prob=[0.5, 0.5],
            sigma_x=[0.1, 10],
            sigma_y=[0.1, 10],
            rotate_angle=[-3.1416, 3.1416]),
        keys=['img']),
    dict(
        type='RandomResize',
        params=dict(
            resize_mode_prob=[0, 1, 0],
            resize_scale=[1 / 8, 1],
            resize_opt=['bilinear'],
            resize_prob=[1]),
        keys=['img']),
    dict(
        type='RandomNoise',
        params=dict(
            noise_type=['gaussian'],
            noise_prob=[1],
            gaussian_sigma=[0, 20],
            gaussian_gray_noise_prob=0),
        keys=['img']),
    dict(type='Clip', keys=['img']),
    dict(type='RandomJPEGCompression', params=dict(quality=[60, 100]), keys=['img'],
         bgr2rgb=True),
    dict(
        type='RandomResize',
        params=dict(target_size=(512, 512), resize_opt=['bilinear'], resize_prob=[1]),
        keys=['img']),
    # two crops of one degraded image, drawn separately
    dict(type='CopyValues', src_keys=['img', 'img'], dst_keys=['img_q', 'img_k']),
    dict(type='Crop', keys=['img_q'], crop_size=crop_size),
    dict(type='Crop', keys=['img_k'], crop_size=crop_size),
    dict(type='PackInputs', keys=['img_q', 'img_k']),
]
train_dataloader = dict(
    num_workers=4,
    batch_size=32,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BasicImageDataset',
        metainfo=dict(dataset_type='ffhq', task_name='degradation'),
        data_root='data/ffhq',
        data_prefix=dict(img='GT'),
        ann_file='meta_info_train.txt',
        pipeline=train_pipeline))

model = dict(
    type='DegradationMoCo',
    encoder=dict(type='DegradationEncoder'),
    projection_channels=256,
    queue_size=8192,
    momentum=0.999,
    temperature=0.07,
    data_preprocessor=dict(
        type='DataPreprocessor',
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        data_keys=None))
model_wrapper_cfg = dict(
    _delete_=True, type='MMDistributedDataParallel', broadcast_buffers=False)

train_cfg = dict(type='IterBasedTrainLoop', max_iters=437_500)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(
    type='MultiStepLR', by_epoch=False, milestones=[262_500, 350_000], gamma=0.1)

# nothing to validate: the loss and the accuracy of finding the other crop are in the log
val_cfg = None
val_evaluator = None
test_cfg = None
test_evaluator = None
default_hooks = dict(checkpoint=dict(save_best=None))
custom_hooks = [dict(type='CleanCheckpointHook')]

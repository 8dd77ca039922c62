# First stage of the multi-degradation variant: what its degradation encoder describes is learned by
# contrast. Optimiser, queue and length (200 epochs of FFHQ's 70,000 images) are those of the
# official code. Its degradations are not published: these are GFP-GAN's, which it compares with.
_base_ = '../_base_/default_runtime.py'

model = dict(
    type='DegradationMoCo',
    encoder=dict(type='DegradationEncoder'),
    data_preprocessor=dict(
        type='DataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5],
        data_keys=[]))

size = 512
train_pipeline = [
    dict(type='LoadImageFromFile', key='img', color_type='color', channel_order='rgb'),
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
    # two crops of the same degraded image, each in a place of its own
    dict(type='CopyValues', src_keys=['img'], dst_keys=['key_img']),
    dict(type='Crop', keys=['img'], crop_size=(size // 2, size // 2)),
    dict(type='Crop', keys=['key_img'], crop_size=(size // 2, size // 2)),
    dict(type='PackInputs', keys=['img', 'key_img']),
]
train_dataloader = dict(
    num_workers=8,
    batch_size=32,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BasicImageDataset',
        metainfo=dict(dataset_type='ffhq', task_name='restoration'),
        data_root='data/ffhq',
        data_prefix=dict(img='GT'),
        ann_file='meta_info_train.txt',
        pipeline=train_pipeline))

train_cfg = dict(type='IterBasedTrainLoop', max_iters=437_500)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(
    type='MultiStepLR', by_epoch=False, milestones=[262_500, 350_000], gamma=0.1)

model_wrapper_cfg = dict(type='MMDistributedDataParallel', find_unused_parameters=False)
default_hooks = dict(checkpoint=dict(save_best=None))
custom_hooks = [dict(type='CleanCheckpointHook')]
val_cfg = None
val_evaluator = None
test_cfg = None
test_evaluator = None

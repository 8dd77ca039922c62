# First stage of the multi-degradation variant: what its degradation encoder describes is learned by
# contrast. Optimiser, queue and length (200 epochs of FFHQ's 70,000 images) are those of the
# official code. Its degradations are not published: these are GFP-GAN's, which it compares with.
# In the second stage the encoder sees images of 512 px pooled to 256, where blur, noise and JPEG
# blocks are half as large. Here it sees the same: crops of 256 px, pooled likewise to 128.
_base_ = ['../_base_/datasets/degradation.py', '../_base_/default_runtime.py']

model = dict(
    type='DegradationMoCo',
    encoder=dict(type='DegradationEncoder', image_size=_base_.size // 4),
    data_preprocessor=dict(
        type='DataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5],
        data_keys=[]))

train_pipeline = [
    dict(type='LoadImageFromFile', key='img', color_type='color', channel_order='rgb'),
    *_base_.pop('degradation'),
    # two crops of the same degraded image, each in a place of its own
    dict(type='CopyValues', src_keys=['img'], dst_keys=['key_img']),
    dict(type='Crop', keys=['img'], crop_size=(_base_.size // 2, _base_.size // 2)),
    dict(type='Crop', keys=['key_img'], crop_size=(_base_.size // 2, _base_.size // 2)),
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

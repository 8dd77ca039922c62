# As sisr_x8.py, at 16x
scale = 16
lr_synthesis = dict(type='LRSynthesis', scale=scale, kernel='bicubic', antialias=True)
load_gt = dict(type='LoadImageFromFile', key='gt', color_type='color', channel_order='rgb')

train_pipeline = [
    load_gt,
    dict(type='Flip', keys=['gt'], flip_ratio=0.5, direction='horizontal'),
    lr_synthesis,
    dict(type='PackInputs'),
]
test_pipeline = [load_gt, lr_synthesis, dict(type='PackInputs')]

train_dataloader = dict(
    num_workers=4,
    batch_size=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BasicImageDataset',
        metainfo=dict(task_name='sisr'),
        data_prefix=dict(gt='GT'),
        ann_file='meta_info_train.txt',
        pipeline=train_pipeline))

val_dataloader = dict(
    num_workers=4,
    batch_size=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BasicImageDataset',
        metainfo=dict(task_name='sisr'),
        data_prefix=dict(gt='GT'),
        ann_file='meta_info_test.txt',
        pipeline=test_pipeline))
test_dataloader = val_dataloader

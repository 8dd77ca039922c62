# 64-px crops of scikit-image's pictures, written by tools/demo.py
scale = 8
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
    num_workers=0,  # two cores: loading 64-px crops in the main process is no slower
    batch_size=8,
    persistent_workers=False,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BasicImageDataset',
        metainfo=dict(dataset_type='demo', task_name='sisr'),
        data_root='work_dirs/demo/data/train',
        data_prefix=dict(gt='GT'),
        pipeline=train_pipeline))

val_dataloader = dict(
    num_workers=0,
    batch_size=1,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BasicImageDataset',
        metainfo=dict(dataset_type='demo', task_name='sisr'),
        data_root='work_dirs/demo/data/val',
        data_prefix=dict(gt='GT'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader

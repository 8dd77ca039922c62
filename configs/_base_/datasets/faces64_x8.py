# Aligned faces of 128 px, pooled to 64 px while loading: two folders, train and val
_base_ = ['./sisr.py', './lr_x8.py']

pool = dict(type='Resize', keys=['gt'], scale=(64, 64), interpolation='area')
train_pipeline = [
    _base_.load_gt,
    pool,
    dict(type='Flip', keys=['gt'], flip_ratio=0.5, direction='horizontal'),
    _base_.lr_synthesis,
    dict(type='PackInputs'),
]
test_pipeline = [_base_.load_gt, pool, _base_.lr_synthesis, dict(type='PackInputs')]
faces = dict(data_root='data/faces128', ann_file='', metainfo=dict(dataset_type='faces'))

# loading in the main process is no slower on two cores
train_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(faces, data_prefix=dict(gt='train'), pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=0, persistent_workers=False, batch_size=16,
    dataset=dict(faces, data_prefix=dict(gt='val'), pipeline=test_pipeline))
test_dataloader = val_dataloader

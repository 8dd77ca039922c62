# GT images only: the LR is made from them while loading (lr_x8.py, lr_x16.py). Data sets: the
# files beside this one.
train_dataloader = dict(
    num_workers=4,
    batch_size=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BasicImageDataset',
        metainfo=dict(task_name='sisr'),
        data_prefix=dict(gt='GT'),
        ann_file='meta_info_train.txt'))
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
        ann_file='meta_info_test.txt'))
test_dataloader = val_dataloader

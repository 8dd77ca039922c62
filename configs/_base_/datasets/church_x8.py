_base_ = ['./sisr.py', './lr_x8.py']

train_dataloader = dict(dataset=dict(
    data_root='data/lsun_church', metainfo=dict(dataset_type='church'),
    pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(
    data_root='data/lsun_church', metainfo=dict(dataset_type='church'),
    pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader

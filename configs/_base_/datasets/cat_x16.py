_base_ = ['./sisr.py', './lr_x16.py']

train_dataloader = dict(dataset=dict(
    data_root='data/lsun_cat', metainfo=dict(dataset_type='cat'),
    pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(
    data_root='data/lsun_cat', metainfo=dict(dataset_type='cat'),
    pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader

_base_ = ['./sisr.py', './lr_x8.py']

train_dataloader = dict(dataset=dict(
    data_root='data/ffhq', metainfo=dict(dataset_type='ffhq'),
    pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(
    data_root='data/celeba_hq', metainfo=dict(dataset_type='celeba_hq'),
    pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader

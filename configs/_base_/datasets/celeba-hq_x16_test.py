# Testing alone, for weights that others trained
_base_ = ['./sisr.py', './lr_x16.py']

train_dataloader = None
val_dataloader = dict(dataset=dict(
    data_root='data/celeba_hq', metainfo=dict(dataset_type='celeba_hq'),
    pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader

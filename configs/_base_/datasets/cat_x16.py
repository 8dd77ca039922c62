_base_ = './sisr_x16.py'

train_dataloader = dict(dataset=dict(
    data_root='data/lsun_cat', metainfo=dict(dataset_type='cat')))
val_dataloader = dict(dataset=dict(
    data_root='data/lsun_cat', metainfo=dict(dataset_type='cat')))
test_dataloader = val_dataloader

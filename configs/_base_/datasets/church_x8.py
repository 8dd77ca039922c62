_base_ = './sisr_x8.py'

train_dataloader = dict(dataset=dict(
    data_root='data/lsun_church', metainfo=dict(dataset_type='church')))
val_dataloader = dict(dataset=dict(
    data_root='data/lsun_church', metainfo=dict(dataset_type='church')))
test_dataloader = val_dataloader

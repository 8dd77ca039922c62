_base_ = './sisr_x16.py'

train_dataloader = dict(dataset=dict(
    data_root='data/ffhq', metainfo=dict(dataset_type='ffhq')))
val_dataloader = dict(dataset=dict(
    data_root='data/celeba_hq', metainfo=dict(dataset_type='celeba_hq')))
test_dataloader = val_dataloader

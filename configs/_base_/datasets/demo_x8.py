# 64-px crops of scikit-image's pictures, written by tools/demo/twins.py
_base_ = ['./sisr.py', './lr_x8.py']

# two cores: loading 64-px crops in the main process is no slower
train_dataloader = dict(
    num_workers=0,
    batch_size=8,
    persistent_workers=False,
    dataset=dict(
        data_root='work_dirs/demo/data/train', ann_file='', metainfo=dict(dataset_type='demo'),
        pipeline=_base_.train_pipeline))
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root='work_dirs/demo/data/val', ann_file='', metainfo=dict(dataset_type='demo'),
        pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader

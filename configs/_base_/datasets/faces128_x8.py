# The faces of faces64_x8.py, at their 128 px
_base_ = ['./sisr.py', './lr_x8.py']

faces = dict(data_root='data/faces128', ann_file='', metainfo=dict(dataset_type='faces'))
train_dataloader = dict(
    dataset=dict(faces, data_prefix=dict(gt='train'), pipeline=_base_.train_pipeline))
val_dataloader = dict(
    batch_size=16,
    dataset=dict(faces, data_prefix=dict(gt='val'), pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader

# Table 4: trained on bicubic(alias), tested on downsamplings not seen in training
_base_ = './ffhq_x8.py'

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(antialias=False)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

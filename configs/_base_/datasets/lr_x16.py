# GT in, LR made from it by bicubic(antialias), as lr_x8.py
scale = 16
lr_synthesis = dict(type='LRSynthesis', scale=scale, kernel='bicubic', antialias=True)
load_gt = dict(type='LoadImageFromFile', key='gt', color_type='color', channel_order='rgb')

train_pipeline = [
    load_gt,
    dict(type='Flip', keys=['gt'], flip_ratio=0.5, direction='horizontal'),
    lr_synthesis,
    dict(type='PackInputs'),
]
test_pipeline = [load_gt, lr_synthesis, dict(type='PackInputs')]

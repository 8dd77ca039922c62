# The prior of the *_in16out128_* configs
_base_ = [
    '../_base_/models/reduced_stylegan2_128.py',
    '../_base_/datasets/faces128_x8.py',
    '../_base_/reduced_runtime.py',
]

pipeline = [step for step in _base_.train_pipeline if step['type'] != 'LRSynthesis']
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=pipeline))
val_dataloader = test_dataloader = val_evaluator = test_evaluator = val_cfg = test_cfg = None
train_cfg = dict(type='IterBasedTrainLoop', max_iters=6000)
optimizer = dict(type='Adam', lr=2e-3, betas=(0.0, 0.99))
optim_wrapper = dict(
    constructor='MultiOptimWrapperConstructor',
    generator=dict(type='OptimWrapper', optimizer=optimizer),
    discriminator=dict(type='OptimWrapper', optimizer=optimizer))

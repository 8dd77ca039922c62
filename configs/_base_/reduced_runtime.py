# The last checkpoint counts, none is chosen by its figures. Tests save their predictions.
_base_ = './default_runtime.py'

default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=100, save_best=None))
custom_hooks = [
    dict(type='CleanCheckpointHook'),
    dict(type='BasicVisualizationHook', interval=1, on_val=False),
]
visualizer = dict(img_keys=['pred_img'])
val_evaluator = [dict(type='PSNR'), dict(type='SSIM')]
randomness = dict(seed=2023)

default_scope = 'mmagic'
custom_imports = dict(imports=['mmpd'], allow_failed_imports=False)

# DistributedDataParallel
model_wrapper_cfg = dict(type='MMSeparateDistributedDataParallel', find_unused_parameters=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        interval=5000,
        by_epoch=False,
        save_optimizer=True,
        max_keep_ckpts=2,
        on_full_disk='stop',  # 'retry': go on, save at the next interval
        out_dir=None,  # follows --work-dir
        save_best='PSNR'),
    nan=dict(type='NaNHook', on_nan='stop'),
    sampler_seed=dict(type='DistSamplerSeedHook'))
custom_hooks = [
    dict(type='CleanCheckpointHook'),
    dict(type='BasicVisualizationHook', interval=1),
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=4),
    dist_cfg=dict(backend='nccl'))
log_level = 'INFO'
log_processor = dict(type='LogProcessor', window_size=100, by_epoch=False)
load_from = None
resume = False

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(
    type='ConcatImageVisualizer',
    vis_backends=vis_backends,
    fn_key='gt_path',
    img_keys=['input', 'pred_img', 'gt_img'],
    bgr2rgb=True)

val_evaluator = [
    dict(type='MAE'),
    dict(type='PSNR'),
    dict(type='SSIM'),
    dict(type='LRConsistency'),
]
test_evaluator = val_evaluator
val_cfg = dict(type='MultiValLoop')
test_cfg = dict(type='MultiTestLoop')

# MMagicInferencer resizes to 32x32 unless told otherwise: the LR goes in as it is
inference_pipeline = [
    dict(type='LoadImageFromFile', key='img', color_type='color', channel_order='rgb'),
    dict(type='PackInputs'),
]

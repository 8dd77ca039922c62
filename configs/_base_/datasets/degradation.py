# What Panini's multi-degradation variant does to a GT to make `img`, in both of its stages
size = 512
degradation = [
    dict(
        type='RandomResize', keys=['img'],
        params=dict(target_size=(size, size), resize_opt=['area'], resize_prob=[1.0])),
    dict(
        type='RandomBlur', keys=['img'],
        params=dict(kernel_size=[41], kernel_list=['iso', 'aniso'], kernel_prob=[0.5, 0.5],
                    sigma_x=[0.1, 10], sigma_y=[0.1, 10])),
    dict(
        type='RandomResize', keys=['img'],
        params=dict(resize_mode_prob=[0, 1, 0], resize_scale=[0.125, 1],
                    resize_opt=['bilinear', 'area', 'bicubic'], resize_prob=[1 / 3] * 3)),
    dict(
        type='RandomNoise', keys=['img'],
        params=dict(noise_type=['gaussian'], noise_prob=[1.0], gaussian_sigma=[0, 20],
                    gaussian_gray_noise_prob=0.0)),
    dict(type='RandomJPEGCompression', keys=['img'], params=dict(quality=[60, 100])),
    dict(
        type='RandomResize', keys=['img'],
        params=dict(target_size=(size, size), resize_opt=['bilinear'], resize_prob=[1.0])),
]

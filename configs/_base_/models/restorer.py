# Published weights of a face restorer: it is tested as it is, 64 -> 1024
model = dict(
    type='GANPriorSR',
    generator=dict(in_size=64, out_size=1024),
    test_cfg=dict(),
    data_preprocessor=dict(
        type='DataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]))

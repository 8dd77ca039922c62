_base_ = '../gpen/gpen_bfr-1024_x16_celeba-hq.py'

model = dict(type='PDModel', base='GANPriorSR')

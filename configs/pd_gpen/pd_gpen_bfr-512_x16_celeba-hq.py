_base_ = '../gpen/gpen_bfr-512_x16_celeba-hq.py'

model = dict(type='PDModel', base='GANPriorSR')

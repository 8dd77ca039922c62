_base_ = '../gfpgan/gfpgan_v1_x16_celeba-hq.py'

model = dict(type='PDModel', base='GANPriorSR')

_base_ = '../gfpgan/gfpgan_clean_x16_celeba-hq.py'

model = dict(type='PDModel', base='GANPriorSR')

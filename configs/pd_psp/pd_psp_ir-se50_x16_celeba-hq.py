_base_ = '../psp/psp_ir-se50_x16_celeba-hq.py'

model = dict(type='PDModel', base='GANPriorSR')

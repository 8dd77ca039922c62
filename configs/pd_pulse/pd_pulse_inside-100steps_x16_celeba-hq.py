# PD inside the search: the image of every step is consistent
_base_ = './pd_pulse_100steps_x16_celeba-hq.py'

model = dict(pd_inside=True)

# PD inside the search: the image of every step is consistent
_base_ = '../pulse/pulse_100steps_x16_celeba-hq.py'

model = dict(type='PDPULSE', pd_inside=True)

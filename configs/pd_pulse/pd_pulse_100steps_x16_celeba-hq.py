# PD behind the search
_base_ = '../pulse/pulse_100steps_x16_celeba-hq.py'

model = dict(type='PDPULSE')

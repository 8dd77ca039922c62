_base_ = '../glean/glean_in8out64-tiny_1xb8-400_demo.py'

model = dict(type='PDGLEAN')

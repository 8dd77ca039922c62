# Testing alone, for weights that others trained
_base_ = './ffhq_x16.py'

train_dataloader = None

_base_ = [
    '../_base_/models/reduced.py',
    '../_base_/datasets/faces64_x8.py',
    '../_base_/schedules/800.py',
    '../_base_/reduced_runtime.py',
]

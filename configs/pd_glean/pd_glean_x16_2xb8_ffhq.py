_base_ = 'mmagic::glean/glean_x16_2xb8_ffhq.py'
custom_imports = dict(imports=['mmpd'], allow_failed_imports=False)
model = dict(type='PDGLEAN')

work_dir = './work_dirs/pd_glean_x16_2xb8_ffhq'

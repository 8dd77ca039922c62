_base_ = 'mmagic::glean/glean_in128out1024_4xb2-300k_ffhq-celeba-hq.py'
custom_imports = dict(imports=['mmpd'], allow_failed_imports=False)
model = dict(type='PDGLEAN')

work_dir = './work_dirs/pd_glean_in128out1024_4xb2-300k_ffhq-celeba-hq'

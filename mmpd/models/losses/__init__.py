from .perceptual_loss import PerceptualLoss

__all__ = ['PerceptualLoss']

"""Post-training quantisation, quantisation-aware fine-tuning and the accuracy gate."""

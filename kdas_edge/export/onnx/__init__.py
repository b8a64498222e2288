"""torch to ONNX: the export, its QDQ rewrite, channel scales folded into weights, float16."""

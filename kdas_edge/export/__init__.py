"""The deploy graph and the writers of OpenVINO IR, ONNX and bundles."""

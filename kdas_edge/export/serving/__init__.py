"""A bundle as a model repository of an inference server: OpenVINO Model Server or Triton."""

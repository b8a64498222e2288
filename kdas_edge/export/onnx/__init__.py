"""Export to ONNX: conversion, QDQ rewrite, scale folding, constant folding, float16."""

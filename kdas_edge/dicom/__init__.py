"""DICOM in, DICOM out: stored endoscopic pictures, segmented and referenced. No torch here.

The packages pydicom and highdicom come with `pip install 'kdas-edge[dicom]'` and are imported
inside functions, so that the base install works without them.
"""

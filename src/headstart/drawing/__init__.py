"""Drawn faces: persons, poses and expressions, painted with 70 exact keypoints, for trying the keypoint path offline.

``people.py`` who → ``moments.py`` when and where → ``faces.py`` geometry of the points → ``painting.py`` pixels →
``face_set.py`` files.
"""
